package handover

import (
	"strings"
	"testing"
	"time"
)

// TestLargestRecord: the largest record that peers can have made can be read back. One that could
// not would keep the gateway from starting.
func TestLargestRecord(t *testing.T) {
	for _, c := range []string{"<", `"`, `\`, "&", "~"} {
		domain, id, reason := strings.Repeat(c, MaxDomain), strings.Repeat(c, MaxID), Short(strings.Repeat(c, MaxReason))
		way := make([]string, MaxPath)
		numbers := make([]string, MaxToken)
		for i := range way {
			way[i], numbers[i] = domain, "4294967295"
		}
		terms := Terms{}.EnsureDefaults()
		token := Token(strings.Join(numbers[1:], "."))
		at := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
		j := &Job{
			Key: Key{Origin: domain, ID: id}, Phase: Over, Digest: strings.Repeat(c, MaxDigest), Want: Cancel, Attempts: 1<<32 - 1, Revision: 1<<62 - 1, Used: MaxUsed,
			Taken:  &Taken{From: domain, Token: token, Routed: at, RecallBy: at, Path: way, Hops: MaxPath, Terms: terms, Seq: 1<<62 - 1, Until: at},
			Gave:   &Gave{To: domain, Token: token, Routed: at, RecallBy: at, Terms: terms, Where: way, Seq: 1<<62 - 1, Heard: 1<<62 - 1, Revision: 1<<62 - 1, Status: IsSuspended},
			Result: &Result{Outcome: Cancelled, Reason: reason, Token: Token(strings.Join(numbers, "."))}, Reason: reason,
		}
		b, err := j.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); err != nil {
			t.Errorf("%s: %d bytes: %v", c, len(b), err)
		}
	}
}
