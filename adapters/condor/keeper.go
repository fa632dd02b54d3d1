package condor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// keeper does what nobody waits for: it takes jobs out of the queue that must go, asks
// the queue about what is in doubt, and sees whether the schedd answers.
func (a *Adapter) keeper(ctx context.Context) {
	var concluded time.Time
	for {
		next := a.settings.poll
		if a.Health().Problem != "" {
			next = min(next, time.Second)
		}
		a.book.mu.Lock()
		if a.book.doubt || len(a.book.removals)+len(a.book.strays) > 0 {
			next = min(next, 2*time.Second)
		}
		a.book.mu.Unlock()
		t := time.NewTimer(next)
		ticked := false
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-a.book.wake:
			t.Stop()
		case <-t.C:
			ticked = true
		}
		if !a.settings.Transfer && time.Since(concluded) >= overdue/4 {
			concluded = time.Now()
			a.conclude(concluded)
		}
		a.clear(ctx)
		a.book.mu.Lock()
		doubt := a.book.doubt || ticked && a.book.unsure()
		a.book.mu.Unlock()
		if doubt || a.settings.Spool && ticked {
			_ = a.audit(ctx) // tried again
		}
		a.tools.mu.Lock()
		quiet := time.Since(a.contact) >= next
		a.tools.mu.Unlock()
		if ticked && quiet {
			_, _ = a.run(ctx, as{}, "", "condor_q", append(a.remote(), "-totals", "-constraint", "false")...)
		}
	}
}

// overdue is how long HTCondor has to tell of an end that the runner has recorded.
const overdue = time.Minute

// conclude takes the ends for known that runners recorded and HTCondor does not come to
// tell, and takes their jobs out of the queue: where a schedd died while a program ended,
// the job reads as running until its lease is over, which is 40 minutes as HTCondor comes.
// By the file start nothing of it can run again.
func (a *Adapter) conclude(now time.Time) {
	b := a.book
	b.mu.Lock()
	var open []*job
	for _, j := range b.jobs {
		if j.end == nil && j.bound {
			open = append(open, j)
		}
	}
	b.mu.Unlock()
	recorded := open[:0]
	for _, j := range open { // without the lock: directories may be far away
		// One that was told to end by HTCondor is told of by HTCondor, as it may be held or wait again.
		if end, err := j.dir.ended(); err == nil && end != nil && (!end.Told || j.dir.marked(nameCancel)) {
			recorded = append(recorded, j)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var changed []*job
	for _, j := range recorded {
		switch {
		case j.end != nil:
		case j.recorded.IsZero():
			j.recorded = now
		case now.Sub(j.recorded) >= overdue:
			if own, _ := j.own(); own == nil {
				continue
			}
			j.terminated(true, "", "", now, a.settings)
			b.removals[j.at] = j.tag
			changed = append(changed, j)
			a.log.Info("a job whose program has ended is taken out of the queue, as HTCondor has not told of its end", "tag", j.tag, "job", j.at.String())
		}
	}
	b.tell(changed...)
}

// clear takes out of the queue what must go: jobs that are held for good or are over, and
// what a submission left that was given up.
func (a *Adapter) clear(ctx context.Context) {
	b := a.book
	b.mu.Lock()
	byTag := map[int][]adapters.Tag{}
	for at, tag := range b.removals {
		byTag[at.cluster] = append(byTag[at.cluster], tag)
	}
	strays := b.strays
	b.strays = nil
	sent := len(b.removals)
	b.mu.Unlock()
	if sent > 0 {
		if err := a.remove(ctx, byTag, "the gateway: it is over, or held for good"); err != nil && !fail.Is(err, fail.NotFound) {
			a.log.Warn("jobs that are over, or held for good, can't be removed yet", "error", err)
		} else {
			b.mu.Lock()
			for at, tag := range b.removals {
				if slices.Contains(byTag[at.cluster], tag) {
					delete(b.removals, at)
				}
			}
			b.mu.Unlock()
		}
	}
	for len(strays) > 0 {
		n := min(len(strays), 200)
		var tests []string
		for _, s := range strays[:n] {
			tests = append(tests, fmt.Sprintf("(ClusterId == %d && ProcId == %d)", s.cluster, s.proc))
		}
		constraint := fmt.Sprintf("PortolanSite == %s && (%s)", quote(a.id), strings.Join(tests, " || "))
		if err := a.constrained(ctx, "condor_rm", constraint, "-reason", "the gateway: nobody waits for it"); err != nil && !fail.Is(err, fail.NotFound) {
			b.mu.Lock()
			b.strays = append(b.strays, strays...)
			b.mu.Unlock()
			return
		}
		strays = strays[n:]
	}
}

// maxTags bounds the tags in one constraint.
const maxTags = 400

// members gives the constraints that select jobs: numbers may be another job's by now,
// tags are not.
func members(jobs map[int][]adapters.Tag) (constraints []string) {
	var clusters []int
	for c := range jobs {
		clusters = append(clusters, c)
	}
	slices.Sort(clusters)
	var tests []string
	count := 0
	flush := func() {
		if len(tests) > 0 {
			constraints = append(constraints, strings.Join(tests, " || "))
		}
		tests, count = nil, 0
	}
	for _, c := range clusters {
		tags := jobs[c]
		for len(tags) > 0 {
			n := min(len(tags), maxTags-count)
			var list []string
			for _, t := range tags[:n] {
				list = append(list, string(t))
			}
			tests = append(tests, fmt.Sprintf(`(ClusterId == %d && stringListMember(PortolanTag, "%s"))`, c, strings.Join(list, ",")))
			if count += n; count >= maxTags {
				flush()
			}
			tags = tags[n:]
		}
	}
	flush()
	return constraints
}

// remove takes jobs out of the queue.
func (a *Adapter) remove(ctx context.Context, jobs map[int][]adapters.Tag, reason string) error {
	var last error
	for _, c := range members(jobs) {
		if err := a.constrained(ctx, "condor_rm", c, "-reason", reason); err != nil {
			if !fail.Is(err, fail.NotFound) {
				return err
			}
			last = err
		}
	}
	return last
}

// constrained runs a command on the jobs that a constraint selects; fail.NotFound if
// there are none.
func (a *Adapter) constrained(ctx context.Context, command, constraint string, more ...string) error {
	args := append(append(a.remote(), more...), "-constraint", constraint)
	ans, err := a.run(ctx, as{}, "", command, args...)
	if err != nil {
		return err
	}
	if ans.code == 0 {
		return nil
	}
	if said := string(ans.complaint) + string(ans.out); strings.Contains(said, "all jobs matching constraint") {
		return fail.Errorf("condor."+command, fail.NotFound, "", "there is no such job in the queue")
	}
	return complaint(command, ans)
}
