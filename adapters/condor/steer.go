package condor

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Cancel takes jobs out of the queue. What is asked for is written down first, so that
// the end is told as what it is.
func (a *Adapter) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	jobs := map[int][]adapters.Tag{}
	var sent []int
	for i, h := range handles {
		j, err := a.certain(ctx, "condor.Cancel", h)
		if err != nil {
			errs[i] = err
			continue
		}
		a.book.mu.Lock()
		ended, at, dir := j.end != nil, j.at, j.dir
		a.book.mu.Unlock()
		if ended {
			continue
		}
		if err := writeFile(dir.path(nameCancel), nil, 0o600); err != nil {
			errs[i] = fail.Errorf("condor.Cancel", fail.Unavailable, string(j.tag), "the gateway can't write down that the job is to end: is the disk full?").Because(err)
			continue
		}
		jobs[at.cluster] = append(jobs[at.cluster], j.tag)
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return errs
	}
	err := a.remove(ctx, jobs, "the gateway: it was cancelled")
	if err == nil || fail.Is(err, fail.NotFound) {
		if err != nil || a.settings.Spool { // it has left the queue: its end is on its way, or must be asked for
			a.book.mu.Lock()
			a.book.doubt = true
			a.book.mu.Unlock()
			a.book.poke()
		}
		return errs
	}
	for _, i := range sent {
		errs[i] = err
	}
	return errs
}

// certain finds the job of a handle, and makes certain that HTCondor has it.
func (a *Adapter) certain(ctx context.Context, op string, h adapters.Handle) (*job, error) {
	tag, err := parseHandle(h)
	if err != nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "%v", err)
	}
	for range 2 {
		a.book.mu.Lock()
		j := a.book.jobs[tag]
		doubt := j != nil && a.book.doubtful(j)
		a.book.mu.Unlock()
		if j == nil {
			return nil, fail.Errorf(op, fail.NotFound, string(tag), "the site knows nothing of this job")
		}
		if !doubt {
			return j, nil
		}
		if _, err := a.Find(ctx, []adapters.Tag{tag}); err != nil {
			return nil, err
		}
	}
	return nil, fail.Errorf(op, fail.Unavailable, string(tag), "it is not known whether HTCondor has the job")
}

// steer is one way to influence a job.
type steer struct {
	command string
	status  string         // a test of the job's ad: whom it is about
	from    adapters.Phase // that it can be done from
	to      adapters.Phase // that it leads to
	fine    []adapters.Phase
	not     string
}

var (
	hold1   = steer{"condor_hold", "JobStatus == 1", adapters.Queued, adapters.Held, nil, "a job that has started can't be held"}
	release = steer{"condor_release", "JobStatus == 5", adapters.Held, adapters.Queued, []adapters.Phase{adapters.Running, adapters.Suspended}, "the job has ended"}
	suspend = steer{"condor_suspend", "JobStatus == 2 && JobCurrentStartExecutingDate >= JobCurrentStartDate", adapters.Running, adapters.Suspended, nil, "only a job that runs can be suspended"}
	resume  = steer{"condor_continue", "JobStatus == 7", adapters.Suspended, adapters.Running, nil, "the job is not suspended"}
)

// Hold keeps jobs from starting.
func (a *Adapter) Hold(ctx context.Context, handles []adapters.Handle) []error {
	return a.do(ctx, hold1, handles)
}

// Release lets held jobs start.
func (a *Adapter) Release(ctx context.Context, handles []adapters.Handle) []error {
	return a.do(ctx, release, handles)
}

// Suspend stops the processes of jobs that run.
func (a *Adapter) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	return a.do(ctx, suspend, handles)
}

// Resume lets them go on.
func (a *Adapter) Resume(ctx context.Context, handles []adapters.Handle) []error {
	return a.do(ctx, resume, handles)
}

// steerTime is how long the effect of a command is waited for.
const steerTime = 15 * time.Second

func (a *Adapter) do(ctx context.Context, s steer, handles []adapters.Handle) []error {
	op := "condor." + s.command
	errs := make([]error, len(handles))
	jobs := map[int][]adapters.Tag{}
	waits := map[int]*job{}
	for i, h := range handles {
		j, err := a.certain(ctx, op, h)
		if err != nil {
			errs[i] = err
			continue
		}
		a.book.mu.Lock()
		phase, at := j.phase, j.at
		a.book.mu.Unlock()
		switch done, err := s.outcome(op, j.tag, phase); {
		case err != nil:
			errs[i] = err
		case !done:
			jobs[at.cluster] = append(jobs[at.cluster], j.tag)
			waits[i] = j
		}
	}
	if len(waits) == 0 {
		return errs
	}
	if err := a.command(ctx, s, jobs); err != nil {
		for i := range waits {
			errs[i] = err
		}
		return errs
	}
	a.await(ctx, s, op, waits, errs)
	return errs
}

// command gives the command for jobs; that it is about none of them any more is no
// error.
func (a *Adapter) command(ctx context.Context, s steer, jobs map[int][]adapters.Tag) error {
	for _, c := range members(jobs) {
		if err := a.constrained(ctx, s.command, "("+c+") && "+s.status); err != nil && !fail.Is(err, fail.NotFound) {
			return err
		}
	}
	return nil
}

// outcome says whether a phase is what is wanted, or stands against it.
func (s steer) outcome(op string, tag adapters.Tag, phase adapters.Phase) (done bool, err error) {
	switch {
	case phase == s.to:
		return true, nil
	case phase == s.from || phase == adapters.Unknown:
		return false, nil
	}
	if slices.Contains(s.fine, phase) {
		return true, nil
	}
	return false, fail.Errorf(op, fail.Conflict, string(tag), "%s; it is %v", s.not, phase)
}

// await waits for the effect, as the event log tells it.
func (a *Adapter) await(ctx context.Context, s steer, op string, waits map[int]*job, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, steerTime)
	defer cancel()
	// What is between two states takes no command.
	repeat := time.NewTicker(steerTime / 5)
	defer repeat.Stop()
	for {
		if a.settings.Spool {
			_ = a.audit(ctx)
		}
		a.book.mu.Lock()
		for i, j := range waits {
			if done, err := s.outcome(op, j.tag, j.phase); done || err != nil {
				errs[i] = err
				delete(waits, i)
			}
		}
		news := a.book.news
		a.book.mu.Unlock()
		if len(waits) == 0 {
			return
		}
		var again <-chan time.Time
		if a.settings.Spool {
			again = time.After(500 * time.Millisecond)
		}
		select {
		case <-news:
		case <-again:
		case <-repeat.C:
			jobs := map[int][]adapters.Tag{}
			a.book.mu.Lock()
			for _, j := range waits {
				jobs[j.at.cluster] = append(jobs[j.at.cluster], j.tag)
			}
			a.book.mu.Unlock()
			_ = a.command(ctx, s, jobs) // the effect is what counts
		case <-ctx.Done():
			for i, j := range waits {
				errs[i] = fail.Errorf(op, fail.Uncertain, string(j.tag), "HTCondor took the command, and has not told of its effect yet")
			}
			return
		}
	}
}
