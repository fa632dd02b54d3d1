package limits

import (
	"fmt"
	"strings"
	"time"
)

// Row is a bound for people.
type Row struct {
	What  string // of one peer
	Bound string
	Then  string // what comes of more
}

func size(n int) string { return fmt.Sprintf("%d MiB", n>>20) }

func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func every(d time.Duration) string {
	if d >= time.Minute {
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// Rows gives all bounds.
func Rows() []Row {
	return []Row{
		{"items taken and not done with", count(Undone) + ", and " + size(UndoneBytes), "they are not taken, and come again (rules of the receiver); while those of earlier sessions are as many, OpenSession is answered with `Busy`"},
		{"items that wait to be sent or acknowledged", count(Queue) + ", and " + size(QueueBytes), "nothing is added: states are told when there is room, the latest only"},
		{"requests that are being answered", count(Calls), "`Busy`"},
		{"requests in a second", count(CallRate), "`Busy`"},
		{"sessions opened", fmt.Sprintf("%s, and then one each %s", count(Opens), every(OpenEvery)), "`Busy`"},
		{"what the gateway still has to hear of earlier sessions", count(Untold), "OpenSession is answered with `Busy`"},
		{"sessions that are over", fmt.Sprintf("%s, and the names of %s", count(Closed), count(Names)), "older ones are `UnknownSession`"},
		{"jobs of the peer that are here", count(Jobs) + ", and " + size(RecordBytes) + " of records", "a Route is refused (`exhausted`); what was accepted stays"},
		{"jobs of the peer that are over, or were refused, until their recall deadlines", count(PastJobs) + ", and " + size(RecordBytes) + " of records", "a Route or Control of a job that is not known is not answered, and comes again; the log says so"},
		{"messages about jobs that wait for room in the session", count(Letters), "they are dropped, and sent again when their time comes"},
		{"output among them", size(OutputBytes), "Output of the kind `exhausted`, without data"},
		{"Reads that are being served", count(Reads), "Output of the kind `exhausted`, without data"},
		{"sites that the peer shows", count(Sites) + ", and " + size(ShownBytes) + " of records, twice as many bytes while all is told anew", "what it shows stays as it was, and is asked for again after " + every(Retry) + "; its status says why"},
		{"Pull and Compare", fmt.Sprintf("%s, and then one each %s; one of each kind while what was asked for before is not sent", count(Pulls), every(PullEvery)), "the last of each kind is answered later"},
		{"statements of the peer that are kept", count(Statements), "the oldest are dropped, contested ones too"},
		{"messages of the ledger that wait for room", count(Said), "they are dropped; the peer asks again"},
		{"Accounts that ask for the same", fmt.Sprintf("%s, and then one each %s", count(Asks), every(AskEvery)), "the last is answered later"},
	}
}

// Table gives them as Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("\n| of one peer | at most | what comes of more |\n|---|---|---|\n")
	for _, r := range Rows() {
		b.WriteString("| " + r.What + " | " + r.Bound + " | " + r.Then + " |\n")
	}
	b.WriteString("\n")
	return b.String()
}
