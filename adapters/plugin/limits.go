package plugin

import "time"

// What comes back from a plug-in is bounded, whatever it is. adapter.proto names
// those that an author must know.
const (
	maxMessage    = 32 << 20
	maxDefinition = 8 << 20 // as large as a document may be that the gateway takes
	maxHandle     = 64 << 10
	maxSentence   = 4 << 10
	maxWord       = 1 << 10 // names, versions, URIs
	maxList       = 4096    // environments, shares, hosts, remarks
	maxAttribute  = 4 << 10 // bytes of one value
	maxChunk      = 1 << 20
	batchBytes    = 16 << 20 // of the jobs or handles in one call
	batchItems    = 10_000
	submitItems   = 500      // a plug-in syncs each to a disk that may be busy, within the time of one call
	maxStderr     = 64 << 10 // bytes of one line that is logged
	maxLine       = 16 << 10 // bytes of the handshake's line
)

// Times that are the plug-in's to keep, if its site's settings say nothing else.
const (
	defaultStart = 30 * time.Second
	defaultCall  = 2 * time.Minute
	healthEvery  = 5 * time.Second
	healthWait   = 5 * time.Second
	healthMisses = 4
	askHealth    = time.Second // how long Health waits for the newest word
	checkWait    = 30 * time.Second
	stopWait     = 5 * time.Second // between Close and SIGKILL
	leastDelay   = 200 * time.Millisecond
	mostDelay    = time.Minute
	steady       = time.Minute // so long up, and the next start is at once again
)
