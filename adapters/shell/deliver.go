package shell

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// parcel is a part on its way to its host.
type parcel struct {
	job  *hostedJob
	part *hostPart
}

// deliverNew writes down where jobs are to run, and then gives them to their hosts.
func (s *Hosts) deliverNew(batch []*hostedJob) {
	byHost := map[*host][]parcel{}
	for _, j := range batch {
		s.mu.Lock()
		parts := j.parts
		s.mu.Unlock()
		if err := s.assign(j, parts, true); err != nil {
			s.log().Error("a job's host can't be recorded", "tag", j.tag, "error", err)
			s.mu.Lock()
			s.requeue(j, "the site can't record where the job is to run at present (is its disk full?), and tries again")
			s.later()
			s.mu.Unlock()
			continue
		}
		s.mu.Lock()
		for _, p := range parts {
			p.persisted = true
			if !p.Idle {
				byHost[p.host] = append(byHost[p.host], parcel{j, p})
			}
		}
		s.mu.Unlock()
	}
	for h, parcels := range byHost {
		s.wg.Go(func() { s.deliver(h, parcels) })
	}
}

// deliver gives parts to a host that may have them already. If its answer is lost,
// the host is asked when it is back.
func (s *Hosts) deliver(h *host, parcels []parcel) {
	ctx, stop := s.context()
	defer stop()
	for chunk := range slices.Chunk(parcels, 64) {
		c := call{Do: hostPlace}
		for _, p := range chunk {
			r := p.job.request
			s.mu.Lock()
			r.NotAfter = p.job.notAfter
			s.mu.Unlock()
			r.Part = p.part.Part
			c.Jobs = append(c.Jobs, r)
		}
		errs, err := h.each(ctx, c, len(chunk))
		if err != nil {
			if !errNoAnswer(err) {
				s.log().Error("a host does not take jobs", "host", h.Name, "error", err)
			}
			return
		}
		var cancel []adapters.Tag
		s.mu.Lock()
		for i, p := range chunk {
			switch {
			case p.job.over || !slices.Contains(p.job.parts, p.part):
			case errs[i] != nil:
				s.refuse(p.job, p.part, errs[i])
			default:
				s.delivered(p.job, p.part)
				if p.job.cancel || p.job.verdict != nil {
					cancel = append(cancel, p.job.tag)
				}
			}
		}
		s.mu.Unlock()
		if len(cancel) > 0 {
			_, _ = h.each(ctx, call{Do: hostCancel, Tags: cancel}, len(cancel)) // if it is lost, the host is asked when it is back
		}
	}
}

// context is one that ends with the adapter.
func (s *Hosts) context() (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		select {
		case <-s.life:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}

// delivered notes that a host has its part. Called with mu held.
func (s *Hosts) delivered(j *hostedJob, p *hostPart) {
	if p.Delivered {
		return
	}
	p.Delivered = true
	if p.evidence.Phase == adapters.Unknown {
		p.evidence.Phase = adapters.Queued
	}
	if err := s.assign(j, j.parts, false); err != nil {
		s.log().Warn("that a host has a job can't be recorded", "tag", j.tag, "error", err)
	}
}

// arrived takes a host back, asks it for all that it should have, and gives it more.
func (s *Hosts) arrived(ctx context.Context, h *host, f *facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.facts, h.up, h.problem, h.since = f, true, "", time.Now()
	if err := h.remember(filepath.Join(s.dir, dirHosts)); err != nil {
		s.log().Warn("what a host has can't be recorded", "host", h.Name, "error", err)
	}
	s.log().Info("a host is up", "host", h.Name, "slots", f.Slots, "track", f.Track.Way)
	var parcels []parcel
	for _, j := range s.active {
		delete(j.plans, h)
		for _, p := range j.parts {
			if p.host == h && p.persisted && !p.Idle && !p.evidence.Phase.Final() {
				parcels = append(parcels, parcel{j, p})
			}
		}
	}
	s.wg.Go(func() {
		s.reconcile(ctx, h, parcels)
		s.forgetLater(ctx, h)
	})
	s.dispatch()
}

// heard takes a sign of life.
func (s *Hosts) heard(h *host, f *facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil {
		h.facts = f
	}
}

// down notes that a host is away: nothing is known of what it has.
func (s *Hosts) down(h *host, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.up {
		h.since = time.Now()
	}
	if h.up {
		s.log().Warn("a host is down", "host", h.Name, "error", err)
	}
	was := h.up
	h.up = false
	if err != nil {
		h.problem = clip(err.Error())
	}
	if !was || s.closed {
		return
	}
	for _, j := range s.active {
		if !j.over && slices.ContainsFunc(j.parts, func(p *hostPart) bool { return p.host == h && !p.evidence.Phase.Final() }) {
			s.feed.Publish(j.view())
		}
	}
}

// reconcile asks a host that is back for what it should have. What it never got it
// gets now; what it had and has no more is lost.
func (s *Hosts) reconcile(ctx context.Context, h *host, parcels []parcel) {
	for chunk := range slices.Chunk(parcels, 500) {
		tags := make([]adapters.Tag, 0, len(chunk))
		before := make(map[*hostPart]int, len(chunk))
		s.mu.Lock()
		for _, p := range chunk {
			tags = append(tags, p.job.tag)
			before[p.part] = p.part.news
		}
		s.mu.Unlock()
		found, err := h.call(ctx, call{Do: hostFind, Tags: tags})
		if err != nil {
			return
		}
		status, err := h.call(ctx, call{Do: hostStatus, Tags: found.Tags})
		if err != nil || len(status.Evidence) != len(found.Tags) {
			return
		}
		evidence := map[adapters.Tag]adapters.Evidence{}
		for i, tag := range found.Tags {
			evidence[tag] = status.Evidence[i].evidence()
		}
		var again []parcel
		var cancel []adapters.Tag
		s.mu.Lock()
		for _, p := range chunk {
			e, there := evidence[p.job.tag]
			switch {
			case p.job.over || !slices.Contains(p.job.parts, p.part):
			case there:
				s.delivered(p.job, p.part)
				if (p.job.cancel || p.job.verdict != nil) && !e.Phase.Final() {
					cancel = append(cancel, p.job.tag)
				}
				// News that came meanwhile may be newer than the answer.
				if e.Phase.Final() || p.part.news == before[p.part] {
					s.ended(p.job, p.part, e)
				}
			case p.part.Delivered:
				s.ended(p.job, p.part, adapters.Evidence{Phase: adapters.Lost, Reason: "the host " + h.Name + " has no trace of the job any more", Ended: time.Now()})
			case p.job.cancel || p.job.verdict != nil:
				s.ended(p.job, p.part, adapters.Evidence{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
			default:
				again = append(again, p)
				s.feed.Publish(p.job.view())
			}
		}
		s.mu.Unlock()
		if len(cancel) > 0 {
			if _, err := h.each(ctx, call{Do: hostCancel, Tags: cancel}, len(cancel)); err != nil {
				return
			}
		}
		if len(again) > 0 {
			s.deliver(h, again)
		}
	}
}

// news takes what a host says of a job.
func (s *Hosts) news(h *host, e adapters.Evidence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.active[e.Tag]
	if j == nil || j.over {
		return
	}
	for _, p := range j.parts {
		if p.host == h && !p.Idle {
			p.news++
			s.delivered(j, p)
			s.ended(j, p, e)
			return
		}
	}
}

// ended takes evidence of a part, of its end or before. Called with mu held.
func (s *Hosts) ended(j *hostedJob, p *hostPart, e adapters.Evidence) {
	if p.evidence.Phase.Final() || e.Phase == adapters.Unknown {
		return
	}
	p.evidence = e
	if !e.Phase.Final() {
		s.feed.Publish(j.view())
		return
	}
	if !(e.Phase == adapters.Exited && e.ExitStatus != nil && *e.ExitStatus == 0) && j.verdict == nil {
		j.verdict = p
		s.cancelOthers(j, p)
	}
	if len(j.parts) > 1 {
		s.release(p)
	}
	if end, all := j.end(); all {
		s.finish(j, end)
	} else {
		s.feed.Publish(j.view())
	}
	s.dispatch()
}

// cancelOthers ends the processes of a job on the other hosts, as one has failed.
// Called with mu held.
func (s *Hosts) cancelOthers(j *hostedJob, failed *hostPart) {
	for _, p := range j.parts {
		if p == failed || p.Idle || p.evidence.Phase.Final() || p.host == nil {
			continue
		}
		s.wg.Go(func() {
			ctx, stop := s.context()
			defer stop()
			// A host that is away now is told when it is back.
			if _, err := p.host.each(ctx, call{Do: hostCancel, Tags: []adapters.Tag{j.tag}}, 1); err != nil && !errNoAnswer(err) {
				s.log().Error("the other processes of a job can't be ended", "tag", j.tag, "host", p.Host, "error", err)
			}
		})
	}
}

// forgetLater has a host forget what it could not when it was away.
func (s *Hosts) forgetLater(ctx context.Context, h *host) {
	dir := filepath.Join(s.dir, dirForget, h.Name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if s.forgetAt(ctx, h, adapters.Tag(e.Name())) != nil {
			return
		}
	}
}

func (s *Hosts) forgetAt(ctx context.Context, h *host, tag adapters.Tag) error {
	errs, err := h.each(ctx, call{Do: hostForget, Tags: []adapters.Tag{tag}}, 1)
	if err != nil {
		return err
	}
	if errs[0] == nil || fail.Is(errs[0], fail.NotFound) || fail.Is(errs[0], fail.Invalid) {
		return os.Remove(filepath.Join(s.dir, dirForget, h.Name, string(tag)))
	}
	return errs[0]
}
