// "Strategy 3: WebSockets" of the pattern page, word for word. It takes `WebSocket`, `jobId` and `console` from its
// surroundings.

// Client establishes WebSocket connection
const ws = new WebSocket(`wss://api.neo01.com/jobs/${jobId}`);

ws.onmessage = (event) => {
  const update = JSON.parse(event.data);
  
  if (update.status === 'processing') {
    console.log(`Progress: ${update.progress}%`);
  } else if (update.status === 'completed') {
    console.log('Job completed:', update.results);
    ws.close();
  }
};

export { ws };
