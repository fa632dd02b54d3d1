package slurm

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
	"github.com/portolan-project/portolan/internal/fail"
)

// The runner keeps a job's lease on its node, with nobody's help: it reads the file notafter
// once the end that it knows has come. An extension is a write of that file, and no request:
// Slurm is told nothing, as each would be an update of one job. The gateway ends what
// waits, as it withdraws a job: by the file start, so that nobody begins it any more.

// leaseOf gives the end of a lease as the disk has it; zero is none.
func (d jobDir) leaseOf(known time.Time) time.Time {
	if known.IsZero() {
		return known
	}
	return program.ReadLease(d.path(program.NameLease), known, -1)
}

// Extend moves the ends of leases on.
func (a *Adapter) Extend(_ context.Context, extensions []adapters.Extension) []error {
	a.leasing.Lock()
	defer a.leasing.Unlock()
	errs := make([]error, len(extensions))
	for i, x := range extensions {
		m, err := a.member("slurm.Extend", x.Handle)
		if err != nil {
			errs[i] = err
			continue
		}
		a.mu.Lock()
		known, over := m.notAfter, m.evidence.Phase.Final()
		a.mu.Unlock()
		if over || known.IsZero() {
			continue
		}
		if err := program.WriteLease(a.spool.job(m.tag).path(program.NameLease), known, x.NotAfter); err != nil {
			errs[i] = fail.Errorf("slurm.Extend", fail.Unavailable, string(m.tag), "the end of the job's lease could not be written down: %s", why(err)).Because(err)
		}
	}
	return errs
}

// watchLease ends a member that nobody has begun when its lease is over. Called with the
// lock, once for each that has one.
func (a *Adapter) watchLease(m *member, known time.Time) {
	if known.IsZero() {
		return
	}
	m.lease = time.AfterFunc(min(max(time.Until(known), 0), program.LeaseTick), func() {
		dir, until := a.spool.job(m.tag), known
		if !until.After(time.Now()) {
			until = dir.leaseOf(known)
		}
		a.mu.Lock()
		gone := a.closed || a.members[m.tag] != m || m.evidence.Phase.Final()
		a.mu.Unlock()
		if gone {
			return
		}
		if !until.After(time.Now()) && dir.withdraw() {
			a.publish(m, adapters.Evidence{
				Phase: adapters.Stopped, NotRun: true, LeaseEnded: true, Ended: time.Now(), Reason: program.LeaseReason(until),
			})
			a.soon() // it is ended at Slurm as one that nobody waits for
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.watchLease(m, until)
	})
}
