// The polling clients of the pattern page, word for word: "Step 3: Check Status" and "Strategy 1: Polling". They take
// `fetch`, `checkStatus` and `sleep` from their surroundings.

// Client polls for completion
async function waitForCompletion(statusUrl) {
  while (true) {
    const response = await fetch(statusUrl);
    const status = await response.json();
    
    if (status.status === 'completed') {
      return status.results;
    }
    
    if (status.status === 'failed') {
      throw new Error(status.error);
    }
    
    // Wait before polling again
    await sleep(2000);
  }
}

// Exponential backoff polling
async function pollWithBackoff(statusUrl, maxAttempts = 30) {
  let delay = 1000; // Start with 1 second
  
  for (let i = 0; i < maxAttempts; i++) {
    const status = await checkStatus(statusUrl);
    
    if (status.status !== 'pending' && status.status !== 'processing') {
      return status;
    }
    
    await sleep(delay);
    delay = Math.min(delay * 1.5, 30000); // Max 30 seconds
  }
  
  throw new Error('Polling timeout');
}

export { waitForCompletion, pollWithBackoff };
