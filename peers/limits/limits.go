// Package limits has what one peer can cause a gateway to keep: the bounds that are this
// gateway's own, and no matter of what both sides agree on. Bounds of single messages and
// their fields are those of peers/wire. Table is the same for people; docs/peer-protocol.md
// has it.
package limits

import "time"

// Of the sessions with one peer.
const (
	// Undone are items that were taken and are not done with, and UndoneBytes their bytes. An
	// earlier session's count as well until they are done with.
	Undone      = 1024
	UndoneBytes = 32 << 20
	// Queue are items that wait to be sent or acknowledged, and QueueBytes their bytes; one
	// item is always taken.
	Queue      = 2 * Undone
	QueueBytes = 64 << 20
	// Calls are requests of a peer that are being answered at once, and CallRate how many may
	// come in a second.
	Calls    = 16
	CallRate = 500
	// Opens are sessions that may be opened at once, and then one each OpenEvery.
	Opens     = 8
	OpenEvery = 2 * time.Second
	// Untold are things that the gateway was not told yet of a peer's sessions (that one was
	// opened, turned, closed, brought items) when another session is opened.
	Untold = 64
	// Closed are sessions that are remembered when they are over, and Names those of which
	// only the name is.
	Closed = 4
	Names  = 64
)

// Of the jobs of one peer, and of what is said about jobs.
const (
	// Jobs of a peer that are here and not over.
	Jobs = 200_000
	// PastJobs are those that are over, or were never taken, whose record is kept until their
	// recall deadline.
	PastJobs = 500_000
	// RecordBytes is what the records of each of the two may take, what is of fixed size in
	// them left out.
	RecordBytes = 256 << 20
	// Letters are messages about jobs that wait for room in the session.
	Letters = 8192
	// OutputBytes is the output among them.
	OutputBytes = 16 << 20
	// Reads are requests for output that are being served at once.
	Reads = 64
)

// Of what one peer shows, and is shown.
const (
	// Sites that a peer may show, and ShownBytes the bytes of their records; while all is told
	// anew it may be twice as many bytes.
	Sites      = 20_000
	ShownBytes = 64 << 20
	// Retry is after how long a peer that showed more is asked again.
	Retry = 10 * time.Minute
	// Pulls are Pull and Compare that may be answered at once, and then one each PullEvery;
	// of those that come meanwhile the last of each kind is answered.
	Pulls     = 8
	PullEvery = time.Second
)

// Of the favour ledger with one peer.
const (
	// Statements that are kept of what a peer claims, whatever was said to them.
	Statements = 50_000
	// Said are messages of the ledger that wait for room in the session.
	Said = 64
	// Asks are how often the same may be asked for again at once, and then once each AskEvery.
	Asks     = 8
	AskEvery = time.Second
)
