package shell

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
	"github.com/portolan-project/portolan/internal/fail"
)

// The end of a job's lease is in its spec, and a later one in a file beside it, which the
// gateway writes anew to extend the lease. Whoever has the job reads it once the end that it
// knows has come: the supervisor of a job that was begun, and else the gateway, which the
// supervisor does not need. Nobody begins a job whose lease is over.

// leaseOf gives the end of a job's lease as the disk has it; zero is none.
func (d jobDir) leaseOf(s *spec) time.Time {
	if s.NotAfter.IsZero() {
		return s.NotAfter
	}
	return program.ReadLease(d.path(program.NameLease), s.NotAfter, os.Geteuid())
}

// leaseOver says that a lease ended.
func leaseOver(until time.Time, notRun bool) ended {
	return ended{
		Phase: adapters.Stopped, NotRun: notRun, LeaseEnded: true, Ended: time.Now(),
		Reason: program.LeaseReason(until),
	}
}

// errExtend says that an extension does not hold.
func errExtend(tag adapters.Tag, err error) error {
	return fail.Errorf("shell.Extend", fail.Unavailable, string(tag), "the end of the job's lease could not be written: %s", why(err)).Because(err)
}

// Extend moves the ends of leases on.
func (a *Adapter) Extend(_ context.Context, extensions []adapters.Extension) []error {
	a.leasing.Lock()
	defer a.leasing.Unlock()
	errs := make([]error, len(extensions))
	for i, x := range extensions {
		errs[i] = a.extend(x)
	}
	return errs
}

func (a *Adapter) extend(x adapters.Extension) error {
	tag, err := tagOf(x.Handle)
	if err != nil {
		return err
	}
	d := a.path(tag)
	_, e, _, err := d.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errUnknown("shell.Extend", tag)
	case err != nil:
		return errExtend(tag, err)
	case e != nil:
		return nil
	}
	s, err := d.spec()
	if err != nil {
		return errExtend(tag, err)
	}
	if s.NotAfter.IsZero() {
		return nil
	}
	if err := program.WriteLease(d.path(program.NameLease), s.NotAfter, x.NotAfter); err != nil {
		return errExtend(tag, err)
	}
	return nil
}

// watchLease ends a job that nobody has begun when its lease is over. Called with mu held,
// once for each job that has one.
func (a *Adapter) watchLease(j *job, known time.Time) {
	if known.IsZero() {
		return
	}
	j.lease = time.AfterFunc(min(max(time.Until(known), 0), program.LeaseTick), func() {
		until := known
		if !until.After(time.Now()) {
			until = program.ReadLease(a.path(j.tag).path(program.NameLease), known, os.Geteuid())
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.closed || a.active[j.tag] != j {
			return
		}
		if !until.After(time.Now()) && j.member == nil && !j.holds && slices.Contains(a.queue, j) {
			a.lapse(j, until)
		}
		if a.active[j.tag] == j { // it may come back into the queue
			a.watchLease(j, until)
		}
	})
}

// lapse ends a job in the queue. Called with mu held.
func (a *Adapter) lapse(j *job, until time.Time) {
	f, err := a.path(j.tag).claim()
	if err != nil {
		return // whoever has it ends it, or it is tried again
	}
	defer f.Close() // closing is what frees the lock
	e := leaseOver(until, true)
	if err := end(f, e); err != nil {
		a.options.Log.Error("the end of a job's lease can't be recorded", "tag", j.tag, "error", err)
		return
	}
	a.finish(j, e.evidence(j.tag))
	a.dispatch()
}

// keepLease ends a program with its lease, until the function that it gives is called. The
// program is told a while before, so that nothing of it is left at the end.
func (v *supervisor) keepLease(d jobDir, l *life) (stop func()) {
	if l.spec.NotAfter.IsZero() {
		return func() {}
	}
	done := make(chan struct{})
	lease := program.Lease{Read: func() time.Time { return d.leaseOf(l.spec) }, Began: l.began, Grace: l.spec.Grace}
	go lease.Keep(done, func(within time.Duration) { v.cutWithin(l, causeLease, within) })
	return func() { close(done) }
}

// cutWithin ends a job that has so long to end by itself.
func (v *supervisor) cutWithin(l *life, c cause, grace time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.cause != causeNone { // it is being ended, with a grace that may be too long
		if l.running {
			v.killAfter(l, grace)
		}
		return
	}
	l.grace = grace
	v.terminate(l, c)
}

// Extend moves the ends of leases on, at the hosts that have the jobs too.
func (s *Hosts) Extend(ctx context.Context, extensions []adapters.Extension) []error {
	errs := make([]error, len(extensions))
	type asked struct {
		i     int
		tag   adapters.Tag
		until time.Time
	}
	byHost := map[*host][]asked{}
	for i, x := range extensions {
		tag, err := tagOf(x.Handle)
		if err != nil {
			errs[i] = err
			continue
		}
		s.mu.Lock()
		j := s.active[tag]
		s.mu.Unlock()
		if j == nil {
			if _, err := os.Lstat(s.path(tag)); errors.Is(err, fs.ErrNotExist) {
				errs[i] = errUnknown("shell.Extend", tag)
			}
			continue // or it has ended
		}
		if j.made != nil {
			<-j.made
		}
		errs[i] = s.extend(j, x.NotAfter)
		if errs[i] != nil {
			continue
		}
		s.mu.Lock()
		for _, p := range j.parts {
			if !j.notAfter.IsZero() && !p.Idle && p.persisted && p.host != nil && !p.evidence.Phase.Final() {
				byHost[p.host] = append(byHost[p.host], asked{i, tag, j.notAfter})
			}
		}
		s.mu.Unlock()
	}
	for h, list := range byHost {
		for chunk := range slices.Chunk(list, 500) {
			c := call{Do: hostExtend}
			for _, x := range chunk {
				c.Tags, c.Until = append(c.Tags, x.tag), append(c.Until, x.until)
			}
			answers, err := h.each(ctx, c, len(chunk))
			for k, x := range chunk {
				switch {
				case err != nil:
					errs[x.i] = h.unreachable("shell.Extend", x.tag, err)
				case answers[k] != nil && !fail.Is(answers[k], fail.NotFound): // one that it does not have yet comes with the new end
					errs[x.i] = answers[k]
				}
			}
		}
	}
	return errs
}

// extend keeps a later end of a job's lease here: for a host that gets the job, and for the
// gateway after this one.
func (s *Hosts) extend(j *hostedJob, until time.Time) error {
	s.leasing.Lock()
	defer s.leasing.Unlock()
	s.mu.Lock()
	known := j.notAfter
	over := j.over
	s.mu.Unlock()
	if known.IsZero() || over || !until.After(known) {
		return nil
	}
	if err := program.WriteLease(s.path(j.tag, program.NameLease), known, until); err != nil {
		return errExtend(j.tag, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j.notAfter = until.UTC().Round(0)
	return nil
}

// watchLease ends a job that no host has when its lease is over. Called with mu held, once
// for each job that has one.
func (s *Hosts) watchLease(j *hostedJob) {
	if j.notAfter.IsZero() {
		return
	}
	j.lease = time.AfterFunc(min(max(time.Until(j.notAfter), 0), program.LeaseTick), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.active[j.tag] != j {
			return
		}
		if i := slices.Index(s.queue, j); i >= 0 && !j.notAfter.After(time.Now()) && len(j.parts) == 0 {
			e := leaseOver(j.notAfter, true)
			s.finish(j, e.evidence(j.tag))
			s.dispatch()
			return
		}
		s.watchLease(j)
	})
}

// hostedLease gives the end of a job's lease as the disk has it.
func (s *Hosts) hostedLease(h *hostJob) time.Time {
	if h.NotAfter.IsZero() {
		return h.NotAfter
	}
	return program.ReadLease(s.path(h.Tag, program.NameLease), h.NotAfter, os.Geteuid())
}
