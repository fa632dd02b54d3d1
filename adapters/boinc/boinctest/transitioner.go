package boinctest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// What the daemons do: instances are made, compared, collected and given up.

// Transition runs the daemons once over every job that may need them; only a Manual
// project needs it.
func (p *Project) Transition(jobs ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range jobs {
		if w := p.wuNames[name]; w != nil {
			p.daemons(w)
		}
	}
	p.commit()
	p.stir()
}

func (p *Project) transition(w *Workunit) {
	if !p.config.Manual {
		p.daemons(w)
	}
}

// Tick looks at deadlines.
func (p *Project) Tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, r := range p.results {
		if r.ServerState == ServerInProgress && r.Deadline <= now {
			r.ServerState, r.Outcome = ServerOver, OutcomeNoReply
			p.touch(r)
			p.daemons(p.wus[r.Workunit])
		}
	}
	p.commit()
	p.stir()
}

func (p *Project) mod(w *Workunit) {
	w.ModTime = p.now()
	p.touch(w)
}

// daemons takes a job as far as it goes.
func (p *Project) daemons(w *Workunit) {
	p.validate(w)
	p.makeInstances(w)
	p.assimilate(w)
}

// makeInstances makes those that are missing, or gives the job up.
func (p *Project) makeInstances(w *Workunit) {
	if w.Canonical != 0 || w.ErrorMask != 0 {
		if w.ErrorMask == ErrorCancelled && w.Canonical == 0 && p.failures(w) > 0 && p.batches[w.Batch].State == BatchInProgress {
			p.limits(w, 1)
		}
		p.dropUnsent(w)
		return
	}
	open, good := 0, 0
	for _, r := range p.ofWU[w.ID] {
		switch {
		case r.ServerState != ServerOver:
			open++
		case r.Outcome == OutcomeSuccess && r.ValidateState != ValidateInvalid:
			good++
		}
	}
	want := w.Limits.TargetResults
	if good >= w.Limits.MinQuorum { // and they do not agree
		want = max(want, good+1)
	}
	missing := want - open - good
	if missing <= 0 {
		return
	}
	if p.limits(w, missing) {
		p.dropUnsent(w)
		return
	}
	for range missing {
		p.makeInstance(w)
	}
}

func (p *Project) failures(w *Workunit) int {
	n := 0
	for _, r := range p.ofWU[w.ID] {
		if r.ServerState == ServerOver && (r.Outcome == OutcomeClientError || r.Outcome == OutcomeValidateError) {
			n++
		}
	}
	return n
}

// limits sets the error bits of a job that would need more instances.
func (p *Project) limits(w *Workunit, more int) bool {
	failed, good := p.failures(w), 0
	for _, r := range p.ofWU[w.ID] {
		if r.ServerState == ServerOver && r.Outcome == OutcomeSuccess {
			good++
		}
	}
	mask := 0
	if failed > w.Limits.MaxErrors {
		mask |= ErrorTooManyErrors
	}
	if good > w.Limits.MaxSuccess {
		mask |= ErrorTooManySuccesses
	}
	if len(p.ofWU[w.ID])+more > w.Limits.MaxTotal && mask == 0 {
		mask |= ErrorTooManyTotal
	}
	if mask == 0 {
		return false
	}
	w.ErrorMask |= mask
	p.mod(w)
	return true
}

func (p *Project) makeInstance(w *Workunit) {
	name := fmt.Sprintf("%s_%d", w.Name, len(p.ofWU[w.ID]))
	r := &Result{ID: p.id("result"), Name: name, Workunit: w.ID, ServerState: ServerUnsent, Random: p.config.Random(name)}
	p.addResult(r)
	p.unsent = append(p.unsent, r.ID)
	p.touch(r)
}

// dropUnsent calls back what no host has.
func (p *Project) dropUnsent(w *Workunit) {
	for _, r := range p.ofWU[w.ID] {
		if r.ServerState == ServerUnsent || r.ServerState == ServerInactive {
			r.ServerState, r.Outcome = ServerOver, OutcomeDidntNeed
			p.touch(r)
		}
	}
}

// cancel is what abort_batch and abort_jobs do to a job: hosts hear of it when they
// come next.
func (p *Project) cancel(w *Workunit) {
	w.ErrorMask |= ErrorCancelled
	p.mod(w)
	p.dropUnsent(w)
	p.transition(w)
}

// validate compares successful instances once a quorum is there.
func (p *Project) validate(w *Workunit) {
	var good []*Result
	for _, r := range p.ofWU[w.ID] {
		if r.ServerState == ServerOver && r.Outcome == OutcomeSuccess && r.ValidateState != ValidateInvalid && r.ValidateState != ValidateTooLate {
			good = append(good, r)
		}
	}
	if w.Canonical != 0 {
		canonical := p.results[w.Canonical]
		for _, r := range good {
			if r.ValidateState == ValidateInit || r.ValidateState == ValidateInconclusive {
				p.judge(r, p.same(w, canonical, r))
			}
		}
		return
	}
	if len(good) < w.Limits.MinQuorum || !slices.ContainsFunc(good, func(r *Result) bool { return r.ValidateState == ValidateInit }) {
		return
	}
	for _, r := range good {
		var agree []*Result
		for _, other := range good {
			if r == other || p.same(w, r, other) {
				agree = append(agree, other)
			}
		}
		if len(agree) < w.Limits.MinQuorum {
			continue
		}
		for _, other := range good {
			p.judge(other, slices.Contains(agree, other))
		}
		w.Canonical = r.ID
		sum := 0.0
		for _, a := range agree {
			sum += a.Credit
		}
		w.Credit = sum / float64(len(agree))
		p.mod(w)
		p.dropUnsent(w)
		return
	}
	for _, r := range good {
		if r.ValidateState == ValidateInit {
			r.ValidateState = ValidateInconclusive
			p.touch(r)
		}
	}
}

func (p *Project) judge(r *Result, valid bool) {
	r.ValidateState = ValidateInvalid
	if valid {
		r.ValidateState = ValidateValid
	}
	p.touch(r)
}

// same compares two instances' outputs by their places in the template.
func (p *Project) same(w *Workunit, a, b *Result) bool {
	fa, fb := p.outputs(w, a), p.outputs(w, b)
	if p.config.Same != nil {
		return p.config.Same(p.appOf(w.App).Name, fa, fb)
	}
	return maps.EqualFunc(fa, fb, bytes.Equal)
}

// outputs gives the contents of an instance's output files by their names in the job.
func (p *Project) outputs(w *Workunit, r *Result) map[string][]byte {
	files := map[string][]byte{}
	for _, f := range r.Files {
		if content, err := p.read("upload", f.Name); err == nil && f.Index < len(w.Outputs) {
			files[w.Outputs[f.Index].OpenName] = content
		}
	}
	return files
}

// assimilate handles a job that is over: outputs are collected where the application
// says so, and files that nothing keeps are deleted.
func (p *Project) assimilate(w *Workunit) {
	if w.Assimilated || w.Canonical == 0 && w.ErrorMask == 0 {
		return
	}
	w.Assimilated = true
	p.mod(w)
	app := p.appOf(w.App)
	if app.Collect && p.batches[w.Batch] != nil {
		p.collect(w)
	}
	for _, in := range w.Inputs {
		if !in.NoDelete && !in.Remote { // whoever else needs it
			_ = os.Remove(p.file("download", in.Name))
		}
	}
	if p.config.DeleteUploads && !app.Collect {
		for _, r := range p.ofWU[w.ID] {
			for _, f := range r.Files {
				_ = os.Remove(p.file("upload", f.Name))
			}
		}
	}
}

func (p *Project) resultsDir(batch int64) string {
	return filepath.Join(p.dir, "results", itoa(batch))
}

func (p *Project) collect(w *Workunit) {
	dir := p.resultsDir(w.Batch)
	put := func(name string, content []byte) {
		_ = os.MkdirAll(dir, 0o755) // a failure shows as a missing file
		_ = os.WriteFile(filepath.Join(dir, name), content, 0o600)
	}
	r := p.results[w.Canonical]
	if r == nil {
		put(w.Name+"_error", fmt.Appendf(nil, "0x%x\n", w.ErrorMask))
		for _, r := range p.ofWU[w.ID] { // the outputs of failed jobs are gone
			p.moveOut(r, nil)
		}
		return
	}
	p.moveOut(r, func(f OutputFile, content []byte) {
		put(w.Name+"__file_"+w.Outputs[f.Index].OpenName, content)
	})
	if len(r.Files) == 0 {
		put(w.Name+"_no_output_files", nil)
	}
}

func (p *Project) moveOut(r *Result, put func(OutputFile, []byte)) {
	for i, f := range r.Files {
		if content, err := p.read("upload", f.Name); err == nil && put != nil {
			put(f, content)
		}
		_ = os.Remove(p.file("upload", f.Name))
		r.Files[i].Moved = true
	}
	p.touch(r)
}

// retire ends a batch for good.
func (p *Project) retire(b *Batch) {
	for _, w := range p.ofBatch[b.ID] {
		if w.Canonical == 0 && w.ErrorMask == 0 && !slices.ContainsFunc(p.ofWU[w.ID], func(r *Result) bool { return r.ServerState == ServerInProgress }) {
			p.cancel(w)
		}
	}
	p.count(b)
	b.State = BatchRetired
	p.touch(b)
	_ = os.RemoveAll(p.resultsDir(b.ID))
}

// Purge removes a batch with its jobs from the database, as db_purge does in time.
func (p *Project) Purge(batch int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.ofBatch[batch] {
		for _, r := range p.ofWU[w.ID] {
			delete(p.results, r.ID)
			delete(p.byName, r.Name)
		}
		delete(p.ofWU, w.ID)
		delete(p.wus, w.ID)
		delete(p.wuNames, w.Name)
	}
	delete(p.ofBatch, batch)
	delete(p.batches, batch)
}

// RemoveOutputs deletes what is kept of a job's outputs.
func (p *Project) RemoveOutputs(job string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.wuNames[job]; w != nil {
		for _, r := range p.ofWU[w.ID] {
			for _, f := range r.Files {
				_ = os.Remove(p.file("upload", f.Name))
			}
		}
	}
}
