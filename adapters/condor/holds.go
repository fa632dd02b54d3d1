package condor

import (
	"fmt"
	"strings"
	"syscall"
)

// hold is what HTCondor means by a HoldReasonCode.
type hold struct {
	says  string
	errno bool // the subcode is an errno
	ends  bool // no release would help: the job itself is wrong, or its time is over
}

// holds are the codes of HTCondor's manual (Job ClassAd Attributes, HoldReasonCode).
var holds = map[int]hold{
	1:  {says: "it was held by a user or an administrator"},
	2:  {says: "the Globus toolkit failed", ends: true},
	3:  {says: "a policy of the job (periodic_hold, on_exit_hold) held it"},
	4:  {says: "its credentials are not valid"},
	5:  {says: "a policy of the job can't be evaluated", ends: true},
	6:  {says: "the runner could not be started on the node", errno: true, ends: true},
	7:  {says: "the file for its standard output could not be opened", errno: true, ends: true},
	8:  {says: "the file of its standard input could not be opened", errno: true, ends: true},
	9:  {says: "the stream of its standard output could not be opened", errno: true, ends: true},
	10: {says: "the stream of its standard input could not be opened", errno: true, ends: true},
	11: {says: "the other side of a file transfer gave an answer that makes no sense", ends: true},
	12: {says: "its files could not be fetched from the node", errno: true, ends: true},
	13: {says: "its files could not be sent to the node", errno: true, ends: true},
	14: {says: "its directory could not be entered on the node", errno: true, ends: true},
	15: {says: "it was submitted to be held"},
	16: {says: "its files are on their way to the schedd"},
	17: {says: "the job and the shadow that was to care for it do not fit", ends: true},
	18: {says: "the other side of a file transfer let nothing through", ends: true},
	19: {says: "a hook of the site that prepares jobs failed", ends: true},
	20: {says: "the time at which it was to start was missed", ends: true},
	21: {says: "the node held it"},
	22: {says: "its event log could not be written"},
	23: {says: "its account could not be used on the node", ends: true},
	24: {says: "there is no shadow for a job of its kind", ends: true},
	25: {says: "its times to start can't be understood", ends: true},
	26: {says: "the pool's policy (SYSTEM_PERIODIC_HOLD) held it"},
	27: {says: "the pool's policy can't be evaluated"},
	32: {says: "more was to be sent to the node than the pool allows", ends: true},
	33: {says: "more was to be fetched from the node than the pool allows", ends: true},
	34: {says: "it used more memory, or another resource, than it had asked for; ask for more with IndividualPhysicalMemory", ends: true},
	35: {says: "the image of its container can't be used", ends: true},
	36: {says: "it could not be checkpointed", ends: true},
	43: {says: "a program that the site runs before jobs failed", ends: true},
	44: {says: "a program that the site runs after jobs failed", ends: true},
	45: {says: "the node could not try its container out", ends: true},
	46: {says: "WallTimeLimit: it took longer than it may", ends: true},
	47: {says: "WallTimeLimit: it ran longer than it may", ends: true},
	48: {says: "a hook of the site that prepares shadows failed", ends: true},
}

// describeHold gives a sentence for a hold.
func describeHold(code, subcode int, reason string) string {
	h, known := holds[code]
	says := h.says
	if !known {
		says = fmt.Sprintf("HTCondor holds it for a reason of its own, number %d", code)
	}
	if h.errno && subcode > 0 && subcode < 200 {
		says += ": " + syscall.Errno(subcode).Error()
	}
	if reason = strings.Join(strings.Fields(reason), " "); reason != "" {
		says += "; HTCondor says: " + clip(reason)
	}
	return says
}

func signalNumber(n int) syscall.Signal { return syscall.Signal(min(max(n, 0), 128)) }
