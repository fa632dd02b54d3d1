package condor

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
	"github.com/portolan-project/portolan/internal/fail"
)

// The runner keeps a job's lease on its node, with nobody's help: it reads the file notafter
// once the end that it knows has come. An extension is a write of that file, and no request.
// With the settings transfer and spool a node sees no file of the gateway's, and each
// extension would be an edit of the queue that does not reach what runs: then there are no
// leases. The gateway ends what waits, as it withdraws a job: by the file start, so that
// nobody begins it any more.

func (a *Adapter) keepsLeases() bool { return !a.settings.Transfer && !a.settings.Spool }

// leaseOf gives the end of a lease as the disk has it; zero is none.
func (d jobDir) leaseOf(known time.Time) time.Time {
	if known.IsZero() {
		return known
	}
	return program.ReadLease(d.path(program.NameLease), known, -1)
}

// Extend moves the ends of leases on.
func (a *Adapter) Extend(_ context.Context, extensions []adapters.Extension) []error {
	const op = "condor.Extend"
	a.book.leasing.Lock()
	defer a.book.leasing.Unlock()
	errs := make([]error, len(extensions))
	for i, x := range extensions {
		tag, err := parseHandle(x.Handle)
		if err != nil {
			errs[i] = fail.Errorf(op, fail.Invalid, "", "%v", err)
			continue
		}
		a.book.mu.Lock()
		j := a.book.jobs[tag]
		over := j != nil && j.end != nil
		a.book.mu.Unlock()
		switch {
		case j == nil:
			errs[i] = fail.Errorf(op, fail.NotFound, string(tag), "the site knows nothing of this job")
		case over || j.spec.notAfter.IsZero():
		case !a.keepsLeases():
			errs[i] = fail.Errorf(op, fail.Unsupported, string(tag), "the site shares no files with its nodes, and can't extend a lease")
		default:
			if err := program.WriteLease(j.dir.path(program.NameLease), j.spec.notAfter, x.NotAfter); err != nil {
				errs[i] = fail.Errorf(op, fail.Unavailable, string(tag), "the end of the job's lease could not be written down: is the disk full?").Because(err)
			}
		}
	}
	return errs
}

// watchLease ends a job that nobody has begun when its lease is over. Called with the lock,
// or alone, once for each that has one.
func (b *book) watchLease(j *job, known time.Time) {
	if known.IsZero() {
		return
	}
	j.lease = time.AfterFunc(min(max(time.Until(known), 0), program.LeaseTick), func() {
		until := known
		if !until.After(time.Now()) {
			until = j.dir.leaseOf(known)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.closed || b.jobs[j.tag] != j || j.end != nil {
			return
		}
		if !until.After(time.Now()) {
			if never, err := j.dir.withdraw(); err == nil && never {
				j.finish(adapters.Evidence{Phase: adapters.Stopped, NotRun: true, LeaseEnded: true, Reason: program.LeaseReason(until)})
				if j.bound {
					b.removals[j.at] = j.tag
				}
				b.tell(j)
				b.poke()
				return
			}
		}
		b.watchLease(j, until)
	})
}
