package slurm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// How often a way that is better than the one in use is tried, and one that failed.
const (
	betterEvery = 30 * time.Second
	againEvery  = 500 * time.Millisecond
)

// reach finds the best way to Slurm that works.
func (a *Adapter) reach(ctx context.Context) error {
	var last error
	for _, w := range a.ways {
		f, err := w.probe(ctx)
		a.mu.Lock()
		if err != nil {
			a.reasons[w.path()] = fail.Sentence(err)
			a.mu.Unlock()
			last = err
			continue
		}
		delete(a.reasons, w.path())
		if a.way != w {
			a.log.Info("the way to Slurm", "site", a.name, "path", w.path(), "version", f.Version)
		}
		a.way, a.facts = w, f
		a.health.Version = f.Version
		a.mu.Unlock()
		a.answered(nil)
		return nil
	}
	a.answered(last)
	return last
}

// answered notes whether Slurm did.
func (a *Adapter) answered(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if err == nil {
		a.health.Contact = now
		if a.health.Problem != "" || a.health.Since.IsZero() {
			a.health.Problem, a.health.Since = "", now
			a.log.Info("Slurm answers", "site", a.name)
		}
		return
	}
	if a.health.Problem == "" {
		a.health.Since = now
		a.log.Warn("Slurm does not answer", "site", a.name, "cause", err)
	}
	a.health.Problem = fail.Sentence(err)
}

// manager gives the way in use, as long as it works.
func (a *Adapter) manager() (manager, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fail.Errorf("slurm", fail.Unavailable, "", "the site is being shut down")
	}
	if a.way == nil || a.health.Problem != "" {
		problem := a.health.Problem
		if problem == "" {
			problem = "Slurm has not answered yet"
		}
		return nil, fail.Errorf("slurm", fail.Unavailable, "", "%s", problem)
	}
	return a.way, nil
}

// unwell notes an error that says that Slurm can't be reached, for which calls are
// not sent until it is.
func (a *Adapter) unwell(err error) {
	if fail.Is(err, fail.Unavailable) && !errors.Is(err, errBudget) {
		a.answered(err)
		a.soon()
	}
}

// soon has the state of jobs looked at before its time.
func (a *Adapter) soon() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// Health says how the adapter stands with Slurm.
func (a *Adapter) Health() adapters.Health {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.health
	if heard := time.Unix(0, a.budget.heard.Load()); !h.Contact.IsZero() && heard.After(h.Contact) {
		h.Contact = heard
	}
	if a.looking.Load() {
		h.Interval = a.interval()
	}
	h.Requests, h.Waiting = a.budget.sent.Load(), int(a.budget.waiting.Load())
	for _, w := range a.ways {
		h.Offered = append(h.Offered, w.path())
	}
	if a.way != nil {
		h.Path = a.way.path()
	}
	for _, w := range a.ways {
		if w == a.way {
			break
		}
		if reason := a.reasons[w.path()]; reason != "" {
			h.Remarks = append(h.Remarks, fmt.Sprintf("%s is not used: %s", w.path(), reason))
		}
	}
	if a.settings.Slurmrestd == "" {
		h.Remarks = append(h.Remarks, "slurmrestd is not used: the setting slurmrestd does not say where it listens")
	}
	if a.settings.Events == "" {
		h.Remarks = append(h.Remarks, "starts and ends are told by the nodes, and else seen within "+a.settings.poll.String()+"; Slurm's own hook is not installed (setting events)")
	}
	return h
}
