package slurm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Status gives evidence from memory, which is as new as the last look at Slurm or the
// last push. While Slurm does not answer, nothing is known of jobs that have not ended.
func (a *Adapter) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	evidence := make([]adapters.Evidence, len(handles))
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, h := range handles {
		tag, err := tagOf(h)
		if err != nil {
			evidence[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		m := a.members[tag]
		switch {
		case m == nil && a.placing[tag] != nil:
			evidence[i] = adapters.Evidence{Tag: tag, Handle: h, Err: errDoubt(tag)}
		case m == nil:
			evidence[i] = adapters.Evidence{Tag: tag, Handle: h, Phase: adapters.Lost, Reason: "the site has no such job, or has forgotten it"}
		case a.health.Problem != "" && !m.evidence.Phase.Final():
			evidence[i] = adapters.Evidence{Tag: tag, Handle: handleOf(tag), Err: fail.Errorf("slurm.Status", fail.Unavailable, string(tag), "%s", a.health.Problem)}
		default:
			evidence[i] = m.evidence
		}
	}
	return evidence, nil
}

// errUnknown refuses to act on a job that is not there.
func errUnknown(op string, tag adapters.Tag) error {
	return fail.Errorf(op, fail.NotFound, string(tag), "the site has no job %s, or has forgotten it", tag)
}

// member finds the placement of a handle.
func (a *Adapter) member(op string, h adapters.Handle) (*member, error) {
	tag, err := tagOf(h)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[tag]
	if m == nil {
		return nil, errUnknown(op, tag)
	}
	return m, nil
}

// Cancel asks Slurm to end jobs. What is wanted is written down first: should Slurm not
// know a job that runs, the runner heeds it.
func (a *Adapter) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	ask := map[*batch][]*member{}
	for i, h := range handles {
		m, err := a.member("slurm.Cancel", h)
		if err != nil {
			errs[i] = err
			continue
		}
		a.mu.Lock()
		over, settled, b := m.evidence.Phase.Final(), m.batch.settled(), m.batch
		a.mu.Unlock()
		if over {
			continue
		}
		if err := writeFile(a.spool.job(m.tag).path(nameCancel), nil, 0o644); err != nil {
			errs[i] = fail.Errorf("slurm.Cancel", fail.Unavailable, string(m.tag), "that the job is to end could not be written down: %s", why(err)).Because(err)
			continue
		}
		a.mu.Lock()
		m.cancel = true
		a.mu.Unlock()
		if !settled {
			errs[i] = errDoubt(m.tag)
			continue
		}
		ask[b] = append(ask[b], m)
	}
	var ids []jobID
	for b, members := range ask {
		ids = append(ids, a.idsOf(b, members)...)
	}
	way, err := a.manager()
	for some := range slices.Chunk(ids, 500) {
		if err == nil {
			err = way.cancel(ctx, some)
		}
	}
	if err == nil {
		if len(ids) > 0 {
			a.soon()
		}
		return errs
	}
	a.unwell(err)
	for i, h := range handles {
		if errs[i] != nil {
			continue
		}
		if m, e := a.member("slurm.Cancel", h); e == nil && a.wantsEnd(m) {
			errs[i] = err
		}
	}
	return errs
}

// idsOf names members to Slurm: a whole array by its one id.
func (a *Adapter) idsOf(b *batch, members []*member) []jobID {
	a.mu.Lock()
	defer a.mu.Unlock()
	live := 0
	for _, tag := range b.tags {
		if m := a.members[tag]; m != nil && m.batch == b && !m.evidence.Phase.Final() {
			live++
		}
	}
	if b.record.Array && live > 1 && len(members) >= live {
		return []jobID{{Job: b.record.Job, Task: -1}}
	}
	ids := make([]jobID, 0, len(members))
	for _, m := range members {
		ids = append(ids, m.id())
	}
	return ids
}

// now gives a member's evidence as Slurm has it at this moment.
func (a *Adapter) now(ctx context.Context, m *member) (adapters.Evidence, error) {
	asked := time.Now()
	records, at, err := a.queue.get(ctx, 0, a.askQueue)
	if err != nil {
		return adapters.Evidence{}, unavailable("slurm", string(m.tag), err)
	}
	if !at.Before(asked) {
		a.apply(ctx, records, at)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return m.evidence, nil
}

// steer does one thing to each job, whose phase was asked for just before.
func (a *Adapter) steer(ctx context.Context, op string, handles []adapters.Handle, do func(way manager, m *member, e adapters.Evidence) error) []error {
	errs := make([]error, len(handles))
	for i, h := range handles {
		m, err := a.member(op, h)
		if err == nil {
			var e adapters.Evidence
			if e, err = a.now(ctx, m); err == nil {
				a.mu.Lock()
				settled := m.batch.settled()
				a.mu.Unlock()
				var way manager
				switch way, err = a.manager(); {
				case err != nil:
				case e.Phase.Final():
					err = fail.Errorf(op, fail.Conflict, string(m.tag), "the job has ended")
				case !settled:
					err = errDoubt(m.tag)
				default:
					err = do(way, m, e)
				}
			}
		}
		if err != nil {
			a.unwell(err)
		}
		errs[i] = err
	}
	a.soon()
	return errs
}

// Hold keeps jobs from starting. Slurm takes it of a job that runs as well, and then
// only notes it, so that the job is looked at before and after.
func (a *Adapter) Hold(ctx context.Context, handles []adapters.Handle) []error {
	const op = "slurm.Hold"
	return a.steer(ctx, op, handles, func(way manager, m *member, e adapters.Evidence) error {
		running := fail.Errorf(op, fail.Conflict, string(m.tag), "the job has started")
		switch e.Phase { //nolint:exhaustive // all others have started
		case adapters.Held:
			return nil
		case adapters.Queued:
		default:
			return running
		}
		if err := way.hold(ctx, []jobID{m.id()}, true); err != nil {
			return err
		}
		after, err := a.now(ctx, m)
		switch {
		case err != nil:
			return err
		case after.Phase == adapters.Held:
			return nil
		}
		_ = way.hold(ctx, []jobID{m.id()}, false) // so that no later start is kept
		return running
	})
}

// Release lets held jobs start.
func (a *Adapter) Release(ctx context.Context, handles []adapters.Handle) []error {
	const op = "slurm.Release"
	return a.steer(ctx, op, handles, func(way manager, m *member, e adapters.Evidence) error {
		if e.Phase != adapters.Held {
			if e.Phase == adapters.Queued {
				return nil
			}
			return fail.Errorf(op, fail.Conflict, string(m.tag), "the job has started")
		}
		if err := way.hold(ctx, []jobID{m.id()}, false); err != nil {
			return err
		}
		_, err := a.now(ctx, m)
		return err
	})
}

// Suspend stops jobs for now.
func (s suspending) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	const op = "slurm.Suspend"
	return s.steer(ctx, op, handles, func(way manager, m *member, e adapters.Evidence) error {
		switch e.Phase { //nolint:exhaustive // all others do not run
		case adapters.Suspended:
			return nil
		case adapters.Running:
		default:
			return fail.Errorf(op, fail.Conflict, string(m.tag), "the job is %v", e.Phase)
		}
		if err := way.suspend(ctx, m.id(), true); err != nil {
			return err
		}
		_, err := s.now(ctx, m)
		return err
	})
}

// Resume lets suspended jobs go on.
func (s suspending) Resume(ctx context.Context, handles []adapters.Handle) []error {
	const op = "slurm.Resume"
	return s.steer(ctx, op, handles, func(way manager, m *member, e adapters.Evidence) error {
		if e.Phase != adapters.Suspended {
			if e.Phase == adapters.Running {
				return nil
			}
			return fail.Errorf(op, fail.Conflict, string(m.tag), "the job is %v", e.Phase)
		}
		if err := way.suspend(ctx, m.id(), false); err != nil {
			return err
		}
		_, err := s.now(ctx, m)
		return err
	})
}

// Output opens a stream.
func (a *Adapter) Output(_ context.Context, h adapters.Handle, stream adapters.Stream, offset int64) (io.ReadCloser, error) {
	const op = "slurm.Output"
	m, err := a.member(op, h)
	if err != nil {
		return nil, err
	}
	if offset < 0 || stream != adapters.Stdout && stream != adapters.Stderr {
		return nil, fail.Errorf(op, fail.Invalid, string(m.tag), "there is no stream %d from %d", stream, offset)
	}
	s, err := a.readSpec(m.tag)
	if err != nil {
		return nil, fail.E(op, fail.Unavailable, string(m.tag), err)
	}
	nothing := io.NopCloser(strings.NewReader(""))
	path, other := s.outputs(a.spool.job(m.tag))
	if stream == adapters.Stderr {
		path = other
	}
	if b := a.observe(m); b == nil { // it has written nothing, whatever stands there
		return nothing, nil
	}
	// Whatever stands there now, opening it must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	}
	if err != nil {
		return nil, fail.Errorf(op, fail.Unavailable, string(m.tag), "the job's output %s can't be read: %s", path, why(err)).Because(err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = a.mayRead(info, s, path)
	}
	if err != nil {
		_ = f.Close()
		return nil, fail.E(op, fail.Unavailable, string(m.tag), err)
	}
	if !info.Mode().IsRegular() { // a device keeps nothing
		_ = f.Close()
		return nothing, nil
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, fail.E(op, fail.Unavailable, string(m.tag), err)
	}
	return f, nil
}

// mayRead keeps the gateway from reading with its own rights what the job's account
// could not: a path that the job named may lead anywhere by now.
func (a *Adapter) mayRead(info os.FileInfo, s *spec, path string) error {
	if s.UID == a.own.uid {
		return nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == s.UID {
		return nil
	}
	return fail.Errorf("slurm.Output", fail.Denied, path, "%s does not belong to the account that the job ran as", path)
}

// Forget removes a job that ended, with its outputs and its own directories.
func (a *Adapter) Forget(_ context.Context, h adapters.Handle) error {
	const op = "slurm.Forget"
	tag, err := tagOf(h)
	if err != nil {
		return err
	}
	a.mu.Lock()
	m := a.members[tag]
	if m == nil {
		a.mu.Unlock()
		return nil
	}
	if !m.evidence.Phase.Final() {
		phase := m.evidence.Phase
		a.mu.Unlock()
		return fail.Errorf(op, fail.Conflict, string(tag), "the job is %v; only a job that ended can be forgotten", phase)
	}
	delete(a.members, tag)
	m.batch.left--
	empty, b := m.batch.left <= 0, m.batch
	if empty {
		delete(a.batches, b.name)
	}
	a.mu.Unlock()
	if err := a.spool.discard(string(a.spool.job(tag))); err != nil {
		a.log.Warn("a forgotten job leaves files behind", "tag", tag, "error", err)
	}
	_ = os.Remove(a.logOf(m))
	for _, kind := range []string{eventStart, eventEnd} {
		_ = os.Remove(a.spool.path(dirEvents, string(tag)+kind))
	}
	if empty {
		if err := a.spool.removeBatch(b.name); err != nil {
			return fail.E(op, fail.Unavailable, string(tag), fmt.Errorf("removing a batch: %w", err))
		}
	}
	return nil
}
