package condor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// submission is one job on its way to the schedd.
type submission struct {
	plan   *plan
	tag    adapters.Tag
	ctx    context.Context //nolint:containedctx // of the caller who waits for it
	answer chan error      // gets one
}

// maxFold bounds how many jobs become one cluster: MAX_JOBS_PER_SUBMISSION is 20000.
const maxFold = 2000

// Submit places jobs.
func (a *Adapter) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	out := make([]adapters.Placed, len(jobs))
	waits := map[int]*submission{}
	first := map[adapters.Tag]int{}
	known, err := a.stock.get(ctx, a, factsAge)
	if err != nil && known == nil && a.Health().Problem == "" {
		a.unwell(fail.Sentence(err))
	}
	var doubtful []adapters.Tag
	for i, j := range jobs {
		if err := j.Tag.Validate(); err != nil {
			out[i].Err = err
			continue
		}
		if there, doubt := a.placed(j.Tag); doubt {
			doubtful = append(doubtful, j.Tag)
		} else if there {
			out[i].Handle = handle(j.Tag)
			continue
		}
		if _, twice := first[j.Tag]; twice {
			continue
		}
		p, err := a.site.make(known, time.Now(), j.Definition, j.Tag, j.Owner, j.Account)
		switch {
		case err != nil:
			out[i].Err = err
			continue
		case a.place != "":
			out[i].Err = fail.Errorf("condor.Submit", fail.Unavailable, "", "%s", a.place)
			continue
		}
		if err := j.WithoutReservations("condor.Submit"); err != nil {
			out[i].Err = err
			continue
		}
		if !j.NotAfter.IsZero() && !a.keepsLeases() {
			out[i].Err = fail.Errorf("condor.Submit", fail.Unsupported, string(j.Tag), "the site can't end a job by itself when its lease is over, as it shares no files with its nodes")
			continue
		}
		p.spec.Program.NotAfter = j.NotAfter.UTC().Round(0)
		first[j.Tag] = i
		waits[i] = &submission{plan: p, tag: j.Tag, ctx: ctx, answer: make(chan error, 1)}
	}
	// What was placed before, and nobody knows whether it arrived, is looked for first.
	if len(doubtful) > 0 {
		found, err := a.Find(ctx, doubtful)
		for i, s := range waits {
			if !slices.Contains(doubtful, s.tag) {
				continue
			}
			if err != nil {
				out[i].Err = err
			} else if h, ok := found[s.tag]; ok {
				out[i].Handle = h
			} else {
				continue
			}
			delete(waits, i)
		}
	}
	for i := range jobs {
		if s := waits[i]; s != nil {
			select {
			case a.submissions <- s:
			case <-ctx.Done():
				s.answer <- fail.Errorf("condor.Submit", fail.Unavailable, "", "the job was not submitted in time")
			}
		}
	}
	for i := range jobs {
		if s := waits[i]; s != nil {
			select {
			case out[i].Err = <-s.answer:
			case <-ctx.Done():
				out[i].Err = fail.Errorf("condor.Submit", fail.Uncertain, "", "HTCondor has not answered in time, and may have the job").Because(ctx.Err())
			}
			if out[i].Err == nil {
				out[i].Handle = handle(s.tag)
			}
		}
	}
	for i, j := range jobs {
		if k, ok := first[j.Tag]; ok && k != i {
			out[i] = out[k]
		}
	}
	return out
}

// placed says whether a tag is placed, or may be.
func (a *Adapter) placed(tag adapters.Tag) (there, doubt bool) {
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	j := a.book.jobs[tag]
	if j == nil {
		return false, false
	}
	return true, a.book.doubtful(j)
}

// doubtful reports whether it is not known that HTCondor has the job; under the lock.
func (b *book) doubtful(j *job) bool {
	x := b.batches[j.spec.batch]
	return j.end == nil && !j.bound && (x == nil || !x.Settled)
}

// submitter hands jobs to the schedd, all that came meanwhile in one go. It is the only
// one who does, so that a tag is placed once.
func (a *Adapter) submitter(ctx context.Context) {
	for {
		var all []*submission
		select {
		case <-ctx.Done():
			for {
				select {
				case s := <-a.submissions:
					s.answer <- fail.Errorf("condor.Submit", fail.Unavailable, "", "the site is being closed")
				default:
					return
				}
			}
		case s := <-a.submissions:
			all = append(all, s)
		}
		for more := true; more && len(all) < 4*maxFold; {
			select {
			case s := <-a.submissions:
				all = append(all, s)
			default:
				more = false
			}
		}
		a.submitAll(ctx, all)
	}
}

// submitAll submits jobs, those that are alike together.
func (a *Adapter) submitAll(ctx context.Context, all []*submission) {
	groups := map[string][]*submission{}
	var order []string
	twice := map[adapters.Tag]*submission{}
	var later []*submission
	for _, s := range all {
		if there, doubt := a.placed(s.tag); there {
			s.answer <- orDoubt(doubt)
			continue
		}
		if twice[s.tag] != nil { // of another caller
			later = append(later, s)
			continue
		}
		twice[s.tag] = s
		key := s.plan.request.alike()
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], s)
	}
	for _, key := range order {
		group := groups[key]
		for len(group) > 0 {
			n := min(len(group), maxFold)
			a.submitGroup(ctx, group[:n])
			group = group[n:]
		}
	}
	for _, s := range later {
		there, doubt := a.placed(s.tag)
		if there {
			s.answer <- orDoubt(doubt)
		} else {
			s.answer <- fail.Errorf("condor.Submit", fail.Unavailable, "", "the job was not submitted, as another submission of it failed")
		}
	}
}

func orDoubt(doubt bool) error {
	if doubt {
		return fail.Errorf("condor.Submit", fail.Uncertain, "", "it is not known whether HTCondor has the job")
	}
	return nil
}

// submitGroup submits alike jobs as one cluster: first what is about to be done is
// written down, then it is done, then what came of it is written down.
func (a *Adapter) submitGroup(ctx context.Context, group []*submission) {
	waiting := group[:0:0]
	for _, s := range group {
		if s.ctx.Err() != nil {
			s.answer <- fail.Errorf("condor.Submit", fail.Unavailable, "", "the job was not submitted in time")
			continue
		}
		waiting = append(waiting, s)
	}
	group = waiting
	if len(group) == 0 {
		return
	}
	x, text, err := a.prepare(group)
	if x != nil {
		defer close(x.done)
	}
	if err != nil {
		a.giveUp(group, fail.Errorf("condor.Submit", fail.Unavailable, "", "the gateway can't write the job down: is the disk full?").Because(err))
		return
	}
	r := group[0].plan.request
	var who as
	if a.site.root {
		who = as{r.UID, r.GID}
	}
	args := append(a.remote(), "-terse")
	if a.settings.Spool {
		args = append(args, "-spool")
	}
	ans, err := a.run(ctx, who, text, "condor_submit", append(args, "-")...)
	if err == nil && ans.code != 0 {
		err = complaint("condor_submit", ans)
	}
	if err == nil {
		var cluster int
		if cluster, err = parseTerse(string(ans.out), len(group)); err == nil {
			a.settle(x, cluster)
			for _, s := range group {
				s.answer <- nil
			}
			return
		}
	}
	if certainlyNot(err) {
		a.giveUp(group, err)
		return
	}
	a.log.Warn("a submission is in doubt", "batch", x.name, "jobs", len(group), "error", err)
	for _, s := range group {
		s.answer <- fail.Errorf("condor.Submit", fail.Uncertain, "", "it is not known whether HTCondor has taken the job: %s", fail.Sentence(err)).Because(err)
	}
	a.book.mu.Lock()
	a.book.doubt = true
	a.book.mu.Unlock()
	a.book.poke()
}

// certainlyNot reports whether an error of condor_submit says that nothing was
// submitted: the schedd was not reached at all, or it or the command refused.
func certainlyNot(err error) bool {
	switch kind := fail.KindOf(err); {
	case kind == fail.Unsupported, kind == fail.Denied, kind == fail.Exhausted, kind == fail.Invalid:
		return true
	case kind == fail.Unavailable:
		text := err.Error()
		for _, words := range []string{
			"Failed to connect to", "Can't find address of", "unknown host", "Collector has no record", "can't be run", "budget of requests", "Can't connect to",
			"Couldn't contact the condor_collector", "Failed to fetch ads from", "Cannot allocate a cluster id", "Failed to create new cluster",
			"configuration", "Neither the environment variable",
		} {
			if strings.Contains(text, words) {
				return true
			}
		}
	}
	return false
}

// prepare writes a submission down and makes the directories of its jobs.
func (a *Adapter) prepare(group []*submission) (*batch, string, error) {
	b := a.book
	r := &group[0].plan.request
	x := &batch{Version: version, Began: time.Now(), UID: r.UID, name: newBatch(), done: make(chan struct{})}
	if !a.settings.Spool {
		log, err := b.currentLog(r.UID)
		if err != nil {
			return nil, "", err
		}
		x.Log = log
	}
	var requests []*request
	for _, s := range group {
		x.Tags = append(x.Tags, s.tag)
		requests = append(requests, &s.plan.request)
	}
	b.mu.Lock()
	b.batches[x.name] = x
	b.mu.Unlock()
	if err := b.writeBatch(x); err != nil {
		return x, "", err
	}
	for _, s := range group {
		spec := s.plan.spec
		spec.Batch = x.name
		made, err := b.place(spec, r.GID, a.site.root)
		if err == nil && !made {
			err = fmt.Errorf("the directory of job %s is there already", s.tag)
		}
		if err != nil {
			return x, "", err
		}
		j := &job{tag: s.tag, dir: b.jobDir(s.tag), spec: spec.brief(), phase: adapters.Queued}
		b.mu.Lock()
		b.add(j)
		b.mu.Unlock()
	}
	own := shared{
		executable: a.runner, jobs: a.site.jobs, site: a.id, transfer: a.settings.Transfer, runnerHere: a.settings.Runner != "",
		grace: int((a.settings.grace + time.Second - 1) / time.Second),
	}
	if x.Log != "" {
		own.log = b.path(dirLogs, x.Log)
	}
	var text strings.Builder
	text.WriteString(r.body(own, x.name))
	queue(&text, x.Tags, requests)
	return x, text.String(), nil
}

// giveUp undoes what prepare did, when it is certain that nothing was submitted.
func (a *Adapter) giveUp(group []*submission, err error) {
	for _, s := range group {
		a.book.mu.Lock()
		e := a.book.discard(s.tag)
		a.book.mu.Unlock()
		if e != nil {
			a.log.Warn("the directory of a job that was not submitted can't be removed", "tag", s.tag, "error", e)
		}
		s.answer <- err
	}
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	for name, x := range a.book.batches {
		if x.left == 0 && !x.Settled {
			a.book.drop(name)
		}
	}
}

// settle writes down that all jobs of a submission are at the schedd.
func (a *Adapter) settle(x *batch, cluster int) {
	b := a.book
	b.mu.Lock()
	defer b.mu.Unlock()
	x.Settled, x.Cluster = true, cluster
	if err := b.writeBatch(x); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("the answer to a submission can't be written down; it will be asked for again", "error", err)
	}
	for i, tag := range x.Tags {
		j := b.jobs[tag]
		if j == nil || j.bound || j.spec.batch != x.name {
			continue
		}
		j.at, j.bound = ids{cluster, i}, true
	}
}

// parseTerse reads what condor_submit -terse says: "12.0 - 12.4".
func parseTerse(s string, n int) (cluster int, err error) {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	first, last, ok := strings.Cut(strings.TrimSpace(lines[len(lines)-1]), " - ")
	c1, p1, ok1 := parseID(first)
	c2, p2, ok2 := parseID(last)
	if !ok || !ok1 || !ok2 || c1 != c2 || p1 != 0 || p2 != n-1 {
		return 0, fail.Errorf("condor.Submit", fail.Uncertain, "", "HTCondor's answer to a submission of %d jobs can't be understood: %.200q", n, s)
	}
	return c1, nil
}

func parseID(s string) (cluster, proc int, ok bool) {
	c, p, ok := strings.Cut(strings.TrimSpace(s), ".")
	cluster, err1 := strconv.Atoi(c)
	proc, err2 := strconv.Atoi(p)
	return cluster, proc, ok && err1 == nil && err2 == nil && cluster > 0 && proc >= 0
}
