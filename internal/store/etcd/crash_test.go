package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
)

// child creates jobs and moves them on until it is killed, and prints what was
// acknowledged.
func child() {
	ctx := context.Background()
	s, err := etcd.Open(ctx, etcd.Options{Dir: os.Getenv("PORTOLAN_STORE_CHILD")})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	sess, err := s.Join(ctx, "child")
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(args...)
	}
	say("ready")
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				n := store.NewJob{
					ID: fmt.Sprintf("%d-%d-%d", time.Now().UnixNano(), w, i), Owner: "alice", Document: fmt.Append(nil, "document ", w, i),
					Submitted: time.Now(), Event: store.Event{Event: "accepted"},
				}
				n.SubmissionID = "of " + n.ID
				job, _, err := s.Create(ctx, n)
				if err != nil {
					say("error", err)
					return
				}
				say("created", n.ID)
				out := s.Update(ctx, sess, store.Change{
					ID: n.ID, Revision: job.Revision, Status: store.Status{Phase: "moved", Final: i%2 == 0}, Events: []store.Event{{Event: "moved"}},
				})
				if out[0].Err != nil {
					say("error", out[0].Err)
					return
				}
				say("updated", n.ID)
			}
		}()
	}
	for w := range 2 {
		go func() {
			if err := childRecords(ctx, s, sess, w, say); err != nil {
				say("error", err)
			}
		}()
	}
	select {}
}

// childRecords counts in two records that one transaction changes, and claims a third.
func childRecords(ctx context.Context, s *etcd.Store, sess store.Session, w int, say func(...any)) error {
	a, b := fmt.Sprintf("crash/%d/a", w), fmt.Sprintf("crash/%d/b", w)
	n := 0
	found, _, err := s.ListRecords(ctx, a, store.RecordOptions{})
	if err != nil {
		return err
	}
	at := int64(0)
	if len(found) == 1 {
		at = found[0].Revision
		if n, err = strconv.Atoi(string(found[0].Value)); err != nil {
			return err
		}
	}
	for {
		n++
		value := []byte(strconv.Itoa(n))
		if at, err = s.PutRecords(ctx, sess,
			store.RecordChange{Key: a, Value: value, If: at}, store.RecordChange{Key: b, Value: value, If: -1},
			store.RecordChange{Key: fmt.Sprintf("claim/%d", w), Value: value, If: -1, Bound: true}); err != nil {
			return err
		}
		say("record", fmt.Sprintf("%s=%d", a, n))
	}
}

// TestKilled kills a process that writes, many times, and finds all that it was
// told is written.
func TestKilled(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	dir := t.TempDir()
	acked := map[string]int{} // lines of history at least
	for round := range rounds {
		runChild(t, dir, acked, round)
		counted := takeRecords(acked)
		began := time.Now()
		s := open(t, etcd.Options{Dir: dir})
		t.Logf("round %d: %d jobs acknowledged; opened in %v", round, len(acked), time.Since(began).Round(time.Millisecond))
		check(t, s, acked)
		checkRecords(t, s, counted)
		maps.Copy(acked, counted)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if jobs := len(acked) - 2; jobs < rounds {
		t.Errorf("only %d jobs were created in %d rounds", jobs, rounds)
	}
}

func runChild(t *testing.T, dir string, acked map[string]int, round int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PORTOLAN_STORE_CHILD="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Some rounds are killed while starting, most while writing.
	after := 1 + rand.IntN(400)
	if round%5 == 4 {
		time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	}
	lines := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil { // a line that is not whole was not acknowledged
			if err != io.EOF && !strings.Contains(err.Error(), "closed") {
				t.Error(err)
			}
			break
		}
		what, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch what {
		case "created":
			acked[id] = max(acked[id], 1)
		case "updated":
			acked[id] = 2
		case "record":
			key, value, _ := strings.Cut(id, "=")
			acked[key], _ = strconv.Atoi(value)
		case "error":
			t.Errorf("the child says: %s", line)
		}
		if n == after {
			_ = cmd.Process.Kill() // and read on what it had said
		}
	}
	_ = cmd.Wait()
}

// takeRecords separates what was acknowledged of records from that of jobs.
func takeRecords(acked map[string]int) map[string]int {
	counted := map[string]int{}
	for key, n := range acked {
		if strings.HasPrefix(key, "crash/") {
			counted[key] = n
			delete(acked, key)
		}
	}
	return counted
}

// checkRecords: what was acknowledged is there, at most one transaction more is that was
// under way, each transaction is whole, and claims go when the replica comes back. The next
// process counts on from what is there, whether that was acknowledged or not: counted has it
// afterwards.
func checkRecords(t *testing.T, s *etcd.Store, counted map[string]int) {
	t.Helper()
	for key, n := range counted {
		found, _, err := s.ListRecords(t.Context(), strings.TrimSuffix(key, "a"), store.RecordOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 2 || string(found[0].Value) != string(found[1].Value) || found[0].Revision != found[1].Revision {
			t.Errorf("a transaction is there in part: %+v", found)
			continue
		}
		if got, _ := strconv.Atoi(string(found[0].Value)); got < n || got > n+1 {
			t.Errorf("%s was acknowledged as %d and is %d", key, n, got)
		} else {
			counted[key] = got
		}
	}
	sess, err := s.Join(t.Context(), "child")
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	if found, _, err := s.ListRecords(t.Context(), "claim/", store.RecordOptions{}); err != nil || len(found) != 0 {
		t.Errorf("the claims of the killed process are there still: %+v, %v", found, err)
	}
}

func check(t *testing.T, s *etcd.Store, acked map[string]int) {
	t.Helper()
	ids := make([]string, 0, len(acked))
	for id := range acked {
		ids = append(ids, id)
	}
	jobs, err := s.Get(t.Context(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	for id, lines := range acked {
		if jobs[id].Status.Sequence < lines {
			t.Errorf("job %s was acknowledged with %d lines and is %+v", id, lines, jobs[id])
		}
	}
	// Whatever is there is whole: acknowledged or not.
	all, err := s.List(t.Context(), store.ListOptions{Limit: 1 << 20})
	if err != nil || len(all) < len(acked) {
		t.Fatalf("List gave %d jobs of %d, %v", len(all), len(acked), err)
	}
	live, err := s.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, j := range all {
		if !j.Status.Final {
			alive++
		}
		if rand.IntN(20) > 0 {
			continue
		}
		h, err := s.History(t.Context(), j.ID, 0)
		if err != nil || len(h) != j.Status.Sequence {
			t.Errorf("job %s has %d lines, %v; its sequence is %d", j.ID, len(h), err, j.Status.Sequence)
		}
		again := store.NewJob{ID: "x" + j.ID, Owner: j.Owner, SubmissionID: j.SubmissionID, Submitted: time.Now()}
		if again.Document, err = s.Document(t.Context(), j.ID); err != nil {
			t.Error(err)
			continue
		}
		if job, created, err := s.Create(t.Context(), again); err != nil || created || job.ID != j.ID {
			t.Errorf("the same submission as %s gave %s, %v, %v", j.ID, job.ID, created, err)
		}
	}
	if alive != len(live) {
		t.Errorf("%d jobs are not final, and Live gives %d", alive, len(live))
	}
	if c, err := s.Count(t.Context(), "alice"); err != nil || c != int64(len(all)) {
		t.Errorf("Count gave %d, %v; List %d", c, err, len(all))
	}
}
