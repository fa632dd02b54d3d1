package boinc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

const opSubmit = "boinc.Submit"

// want is one job of a Submit that has to be placed.
type want struct {
	tag  adapters.Tag
	plan plan
	xml  string // of the job, when its script is staged
}

// Submit places jobs: those of one application together as a batch.
func (a *Adapter) Submit(ctx context.Context, specs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(specs))
	a.introduced(ctx)
	var mine []want
	reserved := map[adapters.Tag]chan struct{}{}
	for i, spec := range specs {
		pl, err := a.admit(spec)
		if err != nil {
			placed[i].Err = err
			continue
		}
		if _, own := reserved[spec.Tag]; own { // twice in one call
			continue
		}
		// Who places the same tag at once waits for the first.
		if h, err := a.reserve(ctx, spec.Tag, pl.app, reserved); err != nil || h != nil {
			placed[i] = adapters.Placed{Handle: h, Err: err}
			continue
		}
		mine = append(mine, want{tag: spec.Tag, plan: pl})
	}
	errs := a.place(ctx, mine)
	a.mu.Lock()
	for tag, done := range reserved {
		delete(a.placing, tag)
		close(done)
	}
	for i, spec := range specs {
		if _, own := reserved[spec.Tag]; !own || placed[i].Err != nil {
			continue
		}
		if err := errs[spec.Tag]; err != nil {
			placed[i].Err = err
		} else if j := a.jobs[spec.Tag]; j != nil {
			placed[i].Handle = a.handleOf(j)
		} else {
			placed[i].Err = fail.Errorf(opSubmit, fail.Internal, string(spec.Tag), "the job was placed and is not remembered")
		}
	}
	a.mu.Unlock()
	return placed
}

// admit checks one job of a Submit.
func (a *Adapter) admit(spec adapters.Job) (plan, error) {
	if err := spec.Tag.Validate(); err != nil {
		return plan{}, err
	}
	if err := spec.WithoutReservations(opSubmit); err != nil {
		return plan{}, err
	}
	pl, err := a.planFor(spec.Definition)
	if err != nil {
		return plan{}, err
	}
	if spec.Account != "" {
		return plan{}, fail.Errorf(opSubmit, fail.Unsupported, string(spec.Tag), "UserName: the job's owner is mapped to the account %q, and hosts of a project have no accounts for jobs", spec.Account)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if why := a.unfit[pl.app]; why != "" {
		return plan{}, fail.Errorf(opSubmit, fail.Unsupported, string(spec.Tag), "ApplicationName: %s", why)
	}
	return pl, nil
}

// reserve gives the handle of a tag that is placed already, or reserves it.
func (a *Adapter) reserve(ctx context.Context, tag adapters.Tag, app string, reserved map[adapters.Tag]chan struct{}) (adapters.Handle, error) {
	for {
		a.mu.Lock()
		if wait := a.placing[tag]; wait != nil {
			a.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, fail.E(opSubmit, fail.Unavailable, string(tag), ctx.Err())
			}
		}
		j := a.jobs[tag]
		if j == nil {
			if err := a.room(app, len(reserved)); err != nil {
				a.mu.Unlock()
				return nil, err
			}
			done := make(chan struct{})
			a.placing[tag], reserved[tag] = done, done
			a.mu.Unlock()
			return nil, nil
		}
		b := j.batch
		if b.state == batchOpen {
			h := a.handleOf(j)
			a.mu.Unlock()
			return h, nil
		}
		a.mu.Unlock()
		// What became of an earlier submission is not known: the project tells.
		if err := a.resolve(ctx, b); err != nil {
			return nil, err
		}
	}
}

// room says whether the site takes one more job.
func (a *Adapter) room(app string, more int) error {
	open := more
	for _, b := range a.batches {
		if b.state != batchGone {
			open += b.open
		}
	}
	if a.settings.MaxJobs > 0 && open >= a.settings.MaxJobs {
		return fail.Errorf(opSubmit, fail.NotAccepting, a.site, "the site has %d jobs that are not over, as many as it may have (max_jobs)", open)
	}
	if limit := a.settings.Unproven; limit >= 0 && !a.proven[app] {
		if n := a.unsent()[app] + more; n >= limit {
			return fail.Errorf(opSubmit, fail.NotAccepting, a.site,
				"no host has taken a job of the application %q yet and %d wait; more of them could keep the project from sending any job (unproven)", app, n)
		}
	}
	return nil
}

// place submits jobs in batches, and gives the error of each that is not placed.
func (a *Adapter) place(ctx context.Context, jobs []want) map[adapters.Tag]error {
	errs := map[adapters.Tag]error{}
	groups := map[string][]want{}
	var order []string
	for _, w := range jobs {
		key := w.plan.app + " " + strconv.Itoa(w.plan.version)
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], w)
	}
	for _, key := range order {
		group := groups[key]
		if err := a.stageScripts(ctx, group); err != nil {
			for _, w := range group {
				errs[w.tag] = err
			}
			continue
		}
		for len(group) > 0 {
			n, size := 0, 0
			for n < len(group) && n < a.settings.MaxBatch && (n == 0 || size+len(group[n].xml)*5/4 <= a.settings.MaxRequest) {
				size += len(group[n].xml) * 5 / 4 // as the form writes it
				n++
			}
			a.submitSome(ctx, group[:n], errs)
			group = group[n:]
		}
	}
	return errs
}

// maxInline bounds scripts that stand in the request itself.
const maxInline = 8 << 10

// stageScripts brings scripts to the project and writes the jobs' XML. Few scripts,
// and any that is no plain text, are uploaded by the digest of their content and so
// are never sent twice; many small ones go with the jobs.
func (a *Adapter) stageScripts(ctx context.Context, jobs []want) error {
	distinct := map[string]int{}
	for _, w := range jobs {
		if w.plan.script != nil {
			distinct[hexMD5(w.plan.script)] = len(w.plan.script)
		}
	}
	few := len(distinct) <= maxUploads
	var files []file
	now := time.Now()
	for i := range jobs {
		w := &jobs[i]
		input := ""
		if script := w.plan.script; script != nil {
			if !few && len(script) <= maxInline && inlineSafe(script) {
				input = "<input_file><mode>inline</mode>" + el("source", string(script)) + "</input_file>"
			} else {
				sum := hexMD5(script)
				name := a.settings.Prefix + "_" + sum
				if distinct[sum] > 0 {
					files = append(files, file{name: name, content: script})
					distinct[sum] = 0
				}
				input = "<input_file><mode>local_staged</mode>" + el("source", name) + "</input_file>"
			}
		}
		w.xml = w.plan.jobXML(&a.settings, a.jobName(w.tag), input, now)
	}
	if len(files) == 0 {
		return nil
	}
	if err := a.c.stage(ctx, files, a.settings.MaxRequest); err != nil {
		// A file more or less at the project is no job.
		return wrap("upload_files", err, false)
	}
	return nil
}

// inlineSafe says that a text comes out of the request as it went in.
func inlineSafe(script []byte) bool {
	if !utf8.Valid(script) {
		return false
	}
	for _, r := range string(script) {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0xFFFE && r <= 0xFFFF {
			return false
		}
	}
	return true
}

// submitSome places the jobs of one batch. When the project refuses them for good
// because of one, the others are placed without it.
func (a *Adapter) submitSome(ctx context.Context, jobs []want, errs map[adapters.Tag]error) {
	err := a.submitBatch(ctx, jobs)
	if err == nil {
		return
	}
	r, said := errors.AsType[*reported](err)
	if said && len(jobs) > 1 && adapters.ClassOf(wrap("submit_batch", r, true)) == adapters.Permanent && !strings.HasPrefix(r.message, "no ") && !strings.HasPrefix(r.message, "app ") {
		half := len(jobs) / 2
		a.submitSome(ctx, jobs[:half], errs)
		a.submitSome(ctx, jobs[half:], errs)
		return
	}
	if said {
		if m := duplicate.FindStringSubmatch(r.message); m != nil {
			a.takeKnown(ctx, jobs, m[1], errs)
			return
		}
	}
	for _, w := range jobs {
		errs[w.tag] = wrap("submit_batch", err, true)
	}
}

// takeKnown adopts jobs that are at the project although nothing is remembered of
// them, and places the others.
func (a *Adapter) takeKnown(ctx context.Context, jobs []want, name string, errs map[adapters.Tag]error) {
	var tags []adapters.Tag
	for _, w := range jobs {
		tags = append(tags, w.tag)
	}
	found, err := a.adopt(ctx, tags)
	if err != nil {
		for _, w := range jobs {
			errs[w.tag] = fail.E(opSubmit, fail.Uncertain, string(w.tag), err)
		}
		return
	}
	var rest []want
	for _, w := range jobs {
		switch _, ok := found[w.tag]; {
		case ok:
		case a.jobName(w.tag) == name:
			errs[w.tag] = fail.Errorf(opSubmit, fail.Conflict, string(w.tag), "the project has used the name %s before, for a job that was given up", name)
		default:
			rest = append(rest, w)
		}
	}
	if len(rest) > 0 {
		a.submitSome(ctx, rest, errs)
	}
}

// batchName makes the name of a batch of its jobs' tags.
func (a *Adapter) batchName(jobs []want) string {
	h := sha256.New()
	for _, w := range jobs {
		h.Write([]byte(w.tag + "\n"))
	}
	name := a.settings.Prefix + "_"
	if n := jobs[0].plan.name; n != "" {
		name += n + "_"
	}
	name += hex.EncodeToString(h.Sum(nil))[:24]
	// A name is used once: of several the project finds the oldest.
	return name + "_" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

// submitBatch makes a batch and fills it, in two steps with a line in the journal
// before each.
func (a *Adapter) submitBatch(ctx context.Context, jobs []want) error {
	record := &batchRecord{Name: a.batchName(jobs), App: jobs[0].plan.app, At: time.Now()}
	for _, w := range jobs {
		record.Jobs = append(record.Jobs, jobRecord{
			Tag: w.tag, Native: w.plan.native, Stdout: w.plan.stdout, Stderr: w.plan.stderr, Quorum: w.plan.quorum, Wall: w.plan.wall,
			Deadline: w.plan.deadline, Subjects: w.plan.subjects,
		})
	}
	a.mu.Lock()
	b := a.addBatch(record)
	a.mu.Unlock()
	give := func(err error) error {
		a.mu.Lock()
		a.drop(b)
		a.mu.Unlock()
		if noted := a.note(false, entry{Dropped: record.Name}); noted != nil {
			a.log.Warn("a batch that came to nothing is remembered", "batch", record.Name, "error", noted)
		}
		return err
	}
	if err := a.note(true, entry{Batch: record}); err != nil {
		return give(err)
	}
	id, err := a.c.createBatch(ctx, record.App, record.Name)
	if err != nil {
		// Without its id nothing can have got into it; an empty one is swept later.
		if _, said := errors.AsType[*reported](err); !said {
			err = fail.Errorf(opSubmit, fail.Unavailable, "", "the project made no batch: %v", bare(err)).Because(bare(err))
		}
		return give(err)
	}
	a.mu.Lock()
	a.identify(b, id)
	b.state, b.sent = batchDoubtful, time.Now()
	a.mu.Unlock()
	if err := a.note(true, entry{Created: &created{record.Name, id}}, entry{Submit: record.Name}); err != nil {
		return give(err)
	}
	return a.fill(ctx, b, jobs, give)
}

// fill submits a batch's jobs.
func (a *Adapter) fill(ctx context.Context, b *batch, jobs []want, give func(error) error) error {
	var doc strings.Builder
	doc.WriteString("<batch>" + el("batch_id", strconv.FormatInt(b.id, 10)) + el("app_name", b.record.App))
	if v := jobs[0].plan.version; v != 0 {
		doc.WriteString(el("app_version_num", strconv.Itoa(v)))
	}
	for _, w := range jobs {
		doc.WriteString(w.xml)
	}
	doc.WriteString("</batch>")
	err := a.c.submitBatch(ctx, doc.String())
	if r, said := errors.AsType[*reported](err); said {
		if r.kind() == fail.Conflict && strings.HasPrefix(r.message, "batch not in init state") {
			return a.resolve(ctx, b) // an earlier try got through
		}
		// None of the jobs was made; the batch stays behind in its first state.
		if retired := a.c.retireBatch(ctx, b.id); retired != nil {
			a.log.Warn("an empty batch stays at the project", "batch", b.record.Name, "error", bare(retired))
		}
		return give(r)
	}
	if err != nil {
		if notSent(err) {
			return give(wrap("submit_batch", err, true))
		}
		return wrap("submit_batch", err, true)
	}
	a.opened(b)
	return nil
}

// opened notes that a batch's jobs are at the project.
func (a *Adapter) opened(b *batch) {
	a.mu.Lock()
	b.state = batchOpen
	a.mu.Unlock()
	// Should this be lost, the batch's state at the project tells it again.
	if err := a.note(false, entry{Submitted: b.record.Name}); err != nil {
		a.log.Warn("a batch is not remembered as submitted", "batch", b.record.Name, "error", err)
	}
}

// resolve finds out what became of a submission whose answer was lost. Nil means
// that it is known: the batch is open or dropped.
func (a *Adapter) resolve(ctx context.Context, b *batch) error {
	a.mu.Lock()
	id, state, sent := b.id, b.state, b.sent
	planned := slices.ContainsFunc(b.jobs, func(j *job) bool { return a.placing[j.record.Tag] != nil })
	a.mu.Unlock()
	switch {
	case state == batchOpen || state == batchGone:
		return nil
	case state == batchPlanned && planned:
		return fail.Errorf(opSubmit, fail.Unavailable, b.record.Name, "the job is being placed")
	case state == batchPlanned: // the gateway died before anything was submitted
		a.mu.Lock()
		a.drop(b)
		a.mu.Unlock()
		return a.note(false, entry{Dropped: b.record.Name})
	}
	info, err := a.c.queryBatch(ctx, id)
	if err != nil && !gone(err) {
		return wrap("query_batch", err, false)
	}
	if err == nil && (len(info.list) > 0 || info.state == stateRunning) {
		a.opened(b)
		return nil
	}
	// Not there. The project may still be at work on the request, if it was sent
	// just now; when it can't be any more, retiring the batch keeps any straggler out.
	if wait := a.settings.Settle - time.Since(sent); wait > 0 && err == nil {
		return fail.Errorf(opSubmit, fail.Unavailable, b.record.Name, "the answer to a submission was lost and the project may still be at work on it; ask again in %v", wait.Round(time.Second))
	}
	if err == nil {
		if err := a.c.retireBatch(ctx, id); err != nil && !gone(err) {
			return wrap("retire_batch", err, false)
		}
		again, err := a.c.queryBatch(ctx, id)
		if err != nil && !gone(err) {
			return wrap("query_batch", err, false)
		}
		if err == nil && len(again.list) > 0 {
			a.opened(b)
			return nil
		}
	}
	a.mu.Lock()
	a.drop(b)
	a.mu.Unlock()
	return a.note(false, entry{Dropped: b.record.Name})
}
