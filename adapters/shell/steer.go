package shell

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// find gives a job that has not ended, or the evidence of one that has.
func (s *Hosts) find(op string, h adapters.Handle) (*hostedJob, adapters.Evidence, error) {
	tag, err := tagOf(h)
	if err != nil {
		return nil, adapters.Evidence{}, err
	}
	s.mu.Lock()
	j := s.active[tag]
	s.mu.Unlock()
	if j != nil && j.made != nil { // else it is about to be put on disk
		<-j.made
		s.mu.Lock()
		j = s.active[tag]
		s.mu.Unlock()
	}
	if j != nil {
		return j, adapters.Evidence{}, nil
	}
	e := s.recorded(tag)
	switch {
	case e.Err != nil:
		return nil, e, e.Err
	case e.Phase == adapters.Lost:
		if _, err := os.Lstat(s.path(tag)); errors.Is(err, fs.ErrNotExist) {
			return nil, e, errUnknown(op, tag)
		}
	}
	return nil, e, nil
}

// Cancel ends jobs: those that wait at once, others by their hosts. A host that is
// away is told when it is back, by this gateway or the next.
func (s *Hosts) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	const op = "shell.Cancel"
	errs := make([]error, len(handles))
	tell := map[*host][]adapters.Tag{}
	for i, handle := range handles {
		j, _, err := s.find(op, handle)
		if err != nil || j == nil {
			errs[i] = err
			continue
		}
		s.mu.Lock()
		switch {
		case j.over:
		case len(j.parts) == 0:
			s.finish(j, adapters.Evidence{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
		default:
			if err := replace(s.path(j.tag, hostedCancelFile), nil, !s.options.NoSync); err != nil {
				errs[i] = fail.E(op, fail.Unavailable, string(j.tag), err)
				break
			}
			j.cancel = true
			for _, p := range j.parts {
				if !p.Idle && p.host != nil && !p.evidence.Phase.Final() {
					tell[p.host] = append(tell[p.host], j.tag)
				}
			}
		}
		s.mu.Unlock()
	}
	for h, tags := range tell {
		// That a host does not have a job yet is no trouble: it is told once it has.
		if _, err := h.each(ctx, call{Do: hostCancel, Tags: tags}, len(tags)); err != nil && !errNoAnswer(err) {
			s.log().Error("a host does not cancel", "host", h.Name, "error", err)
		}
	}
	return errs
}

// Suspend stops running jobs for a while.
func (s *Hosts) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	return s.turn(ctx, "shell.Suspend", hostSuspend, adapters.Running, handles)
}

// Resume lets them go on.
func (s *Hosts) Resume(ctx context.Context, handles []adapters.Handle) []error {
	return s.turn(ctx, "shell.Resume", hostResume, adapters.Suspended, handles)
}

func (s *Hosts) turn(ctx context.Context, op, do string, from adapters.Phase, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	for i, handle := range handles {
		j, e, err := s.find(op, handle)
		if err != nil {
			errs[i] = err
			continue
		}
		var hosts []*host
		if j != nil {
			s.mu.Lock()
			e = j.view()
			for _, p := range j.parts {
				if !p.Idle && p.host != nil && !p.evidence.Phase.Final() {
					hosts = append(hosts, p.host)
				}
			}
			s.mu.Unlock()
		}
		switch {
		case e.Err != nil:
			errs[i] = e.Err
		case len(hosts) == 0:
			errs[i] = fail.Errorf(op, fail.Conflict, string(e.Tag), "the job is %v; it must be %v", e.Phase, from)
		}
		for _, h := range hosts {
			if errs[i] != nil {
				break
			}
			answers, err := h.each(ctx, call{Do: do, Tags: []adapters.Tag{j.tag}}, 1)
			switch {
			case err != nil:
				errs[i] = h.unreachable(op, j.tag, err)
			default:
				errs[i] = answers[0]
			}
		}
	}
	return errs
}

// Forget removes a job that ended, here and on its hosts; on one that is away, when it
// is back.
func (s *Hosts) Forget(ctx context.Context, handle adapters.Handle) error {
	const op = "shell.Forget"
	tag, err := tagOf(handle)
	if err != nil {
		return err
	}
	e := s.evidence(tag)
	switch {
	case e.Err != nil:
		return e.Err
	case !e.Phase.Final():
		return fail.Errorf(op, fail.Conflict, string(tag), "the job is %v; only a job that ended can be forgotten", e.Phase)
	}
	parts, err := s.assigned(tag)
	if err != nil {
		return fail.E(op, fail.Unavailable, string(tag), err)
	}
	for _, p := range parts {
		if p.host == nil || p.Idle {
			continue
		}
		dir := filepath.Join(s.dir, dirForget, p.Host)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fail.E(op, fail.Unavailable, string(tag), err)
		}
		if err := replace(filepath.Join(dir, string(tag)), nil, false); err != nil {
			return fail.E(op, fail.Unavailable, string(tag), err)
		}
	}
	out, err := os.MkdirTemp(filepath.Join(s.dir, dirStaging), "forget-")
	if err != nil {
		return fail.E(op, fail.Unavailable, string(tag), err)
	}
	if err := os.Rename(s.path(tag), filepath.Join(out, "job")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail.E(op, fail.Unavailable, string(tag), errors.Join(err, os.Remove(out)))
	}
	if err := clear(out); err != nil {
		s.log().Warn("a forgotten job leaves files behind", "dir", out, "error", err)
	}
	for _, p := range parts {
		if p.host == nil || p.Idle {
			continue
		}
		if err := s.forgetAt(ctx, p.host, tag); err != nil && !errNoAnswer(err) {
			s.log().Warn("a host does not forget a job yet", "tag", tag, "host", p.Host, "error", err)
		}
	}
	return nil
}
