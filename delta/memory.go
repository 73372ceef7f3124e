package delta

// Memory in bytes that windows may take at a time, held by weighted semaphores: with
// several small ones at work all cores are busy, and a large one is alone.
const (
	createMemory   = 880 << 20
	applyMemory    = 200 << 20
	optimizeMemory = 600 << 20 // reading what is derived already takes some, too
	groupMemory    = 80 << 20  // to unpack a group; what is kept of it is less
	keptMemory     = 16 << 20  // decoded windows kept for the next file that draws on them
)
