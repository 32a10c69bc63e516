// "Strategy 2: Webhooks" of the pattern page, its client's part, word for word. It takes `fetch` from its surroundings.

// Client provides callback URL
await fetch('/api/videos/transcode', {
  method: 'POST',
  body: JSON.stringify({
    videoUrl: 'https://neo01.com/video.mp4',
    formats: ['720p', '1080p'],
    callbackUrl: 'https://client.com/webhook/video-complete'
  })
});
