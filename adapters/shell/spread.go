package shell

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// planned is what a host's facts say of a job.
type planned struct {
	need  int
	blind bool // the host must be asked
	err   error
	at    time.Time
}

// planAgain is how long a plan from afar is believed.
const planAgain = 10 * time.Second

// What follows is called with the site's mu held.

// plan sees from afar what a job needs of a host. A host that was never heard of may
// be able to run anything.
func (s *Hosts) plan(j *hostedJob, h *host) planned {
	if p, ok := j.plans[h]; ok && time.Since(p.at) < planAgain {
		return p
	}
	p := planned{need: 1, at: time.Now(), blind: true}
	r := j.wanted.definition.Description.Resources
	switch {
	case h.facts != nil:
		w := j.wanted
		if w.program.SPMD != nil {
			w.part = &part{Size: 1, Count: 1, Hosts: []string{h.Name + ":1"}, Need: min(max(w.program.SPMD.Threads, 1), maxSlots)}
		}
		spec, err := h.facts.site(s.options).plan(w)
		if err == nil && !w.notAfter.IsZero() && !h.facts.Lease {
			err = fail.Errorf("shell.Check", fail.Unsupported, "", "the agent on %s is too old to end a job with its lease", h.Name)
		}
		if p.err = err; err == nil {
			p.need, p.blind = spec.Need, spec.blind
		}
	case r != nil && len(r.CandidateHosts) > 0 && !h.named(r.CandidateHosts):
		p.err = fail.Errorf("shell.Check", fail.Unsupported, "", "CandidateHosts: %s is none of %s", h.Name, strings.Join(quoted(r.CandidateHosts), ", "))
	}
	j.plans[h] = p
	return p
}

// allotment is a host with the processes that it is to have.
type allotment struct {
	host  *host
	count int
}

// spread gives the processes of a job to hosts with room for so many, few hosts
// rather than many, and says why it can't be.
func spread(w wanted, room []allotment) ([]allotment, error) {
	want, r := w.program.SPMD, w.definition.Description.Resources
	if r == nil {
		r = &jsdl.Resources{}
	}
	processes := processesOf(w)
	if perHost := want.ProcessesPerHost; perHost > 0 {
		for i := range room {
			if room[i].count < min(perHost, processes) {
				room[i].count = 0
			}
			room[i].count = min(room[i].count, perHost)
		}
	}
	room = slices.DeleteFunc(room, func(a allotment) bool { return a.count < 1 })
	slices.SortStableFunc(room, func(a, b allotment) int { return cmp.Compare(b.count, a.count) })
	all := 0
	for k := range room {
		all += room[k].count
		n := k + 1
		if all < processes || n > processes || r.TotalResourceCount != nil && !r.TotalResourceCount.Contains(float64(n)) {
			continue
		}
		// One each, so that no host is left out, and the rest where there is room.
		out := make([]allotment, n)
		left := processes - n
		for i := range out {
			more := min(left, room[i].count-1)
			out[i] = allotment{room[i].host, 1 + more}
			left -= more
		}
		return out, nil
	}
	return nil, fail.Errorf("shell.Check", fail.Unsupported, "", "NumberOfProcesses: %d processes%s%s do not fit on the site's hosts", processes,
		given(" with ThreadsPerProcess ", want.Threads), given(" and ProcessesPerHost ", want.ProcessesPerHost))
}

func given(what string, n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", what, n)
}

// processesOf gives how many processes a job has: as it says, or as many as the CPUs
// that it asks for.
func processesOf(w wanted) int {
	if n := w.program.SPMD.Processes; n > 0 {
		return n
	}
	n := int64(1)
	if r := w.definition.Description.Resources; r != nil {
		if r.TotalCPUCount != nil {
			if least, ok := r.TotalCPUCount.LowestInteger(1); ok {
				n = least
			}
		} else if r.IndividualCPUCount != nil {
			if least, ok := r.IndividualCPUCount.LowestInteger(1); ok {
				n = least
			}
			if r.TotalResourceCount != nil {
				if hosts, ok := r.TotalResourceCount.LowestInteger(1); ok {
					n *= hosts
				}
			}
		}
	}
	return int(min(n, maxSlots))
}

// threadsOf gives the slots of one process.
func threadsOf(w wanted) int { return min(max(w.program.SPMD.Threads, 1), maxSlots) }

// couldSpread says whether a job's processes would fit if all hosts were free.
func (s *Hosts) couldSpread(j *hostedJob) error {
	w := j.wanted
	if r := w.definition.Description.Resources; r != nil && r.TotalCPUCount != nil && w.program.SPMD.Processes > 0 && !exclusively(r) {
		if most, ok := r.TotalCPUCount.HighestInteger(); ok && int64(w.program.SPMD.Processes) > most {
			return fail.Errorf("shell.Check", fail.Unsupported, "", "NumberOfProcesses: %d processes are more than the CPUs that TotalCPUCount allows, %d", w.program.SPMD.Processes, most)
		}
	}
	var room []allotment
	for _, h := range s.hosts {
		if s.plan(j, h).err != nil {
			continue
		}
		if h.facts == nil && h.Slots == 0 {
			return nil // nobody knows how many it has
		}
		room = append(room, allotment{h, s.roomFor(w, h, h.slots())})
	}
	_, err := spread(w, room)
	return err
}

func exclusively(r *jsdl.Resources) bool { return r.ExclusiveExecution != nil && *r.ExclusiveExecution }

// roomFor gives how many processes of a job so many slots of a host take.
func (s *Hosts) roomFor(w wanted, h *host, slots int) int {
	if r := w.definition.Description.Resources; r != nil && exclusively(r) {
		if slots < h.slots() {
			return 0
		}
		return maxRanks // it has the host for itself, and may crowd it
	}
	return slots / threadsOf(w)
}

// choose finds hosts for a job that waits. With none, it tells those that it waits
// for, which nobody behind it may take.
func (s *Hosts) choose(j *hostedJob) (parts []*hostPart, waits []*host) {
	now := time.Now()
	var able []*host
	for _, h := range s.hosts {
		if _, no := j.refused[h]; no || !h.up || now.Before(j.avoid[h]) {
			continue
		}
		if p := s.plan(j, h); p.err == nil {
			able = append(able, h)
		}
	}
	free := func(h *host) int { return h.slots() - h.used }
	slices.SortStableFunc(able, func(a, b *host) int { return cmp.Compare(free(b), free(a)) })
	if j.wanted.program.SPMD == nil {
		for _, h := range able {
			if need := s.plan(j, h).need; h.used == 0 || need <= free(h) {
				return []*hostPart{{Host: h.Name, Need: need, host: h}}, nil
			}
		}
		return nil, able
	}
	room := make([]allotment, 0, len(able))
	for _, h := range able {
		room = append(room, allotment{h, s.roomFor(j.wanted, h, max(free(h), 0))})
	}
	got, err := spread(j.wanted, room)
	if err != nil {
		return nil, able
	}
	return s.partsOf(j, got), nil
}

// partsOf makes the parts of a job from its allotments.
func (s *Hosts) partsOf(j *hostedJob, got []allotment) []*hostPart {
	names := make([]string, 0, len(got))
	size := 0
	for _, a := range got {
		names = append(names, fmt.Sprintf("%s:%d", a.host.Address, a.count))
		size += a.count
	}
	_, launched := s.options.Launchers[j.wanted.program.SPMD.Variation]
	r := j.wanted.definition.Description.Resources
	parts := make([]*hostPart, 0, len(got))
	first := 0
	for i, a := range got {
		need := a.count * threadsOf(j.wanted)
		if r != nil && exclusively(r) {
			need = a.host.slots()
		}
		parts = append(parts, &hostPart{
			Host: a.host.Name, host: a.host, Need: need, Idle: launched && i > 0,
			Part: &part{Size: size, First: first, Count: a.count, Node: i, Hosts: names, Need: need},
		})
		first += a.count
	}
	return parts
}

// dispatch gives waiting jobs to hosts. The order is kept among those who wait for
// the same hosts; who waits for a host that is down holds nobody up.
func (s *Hosts) dispatch() {
	if s.closed {
		return
	}
	open := map[*host]bool{}
	for _, h := range s.hosts {
		if h.up && h.used < h.slots() {
			open[h] = true
		}
	}
	var batch []*hostedJob
	taken := map[*hostedJob]bool{}
	for _, j := range s.queue {
		if len(open) == 0 || len(batch) >= maxDispatch {
			break
		}
		parts, waits := s.choose(j)
		if !slices.ContainsFunc(parts, func(p *hostPart) bool { return !open[p.host] }) && len(parts) > 0 {
			j.parts, j.reason = parts, ""
			for _, p := range parts {
				s.hold(p)
				if p.host.used >= p.host.slots() {
					delete(open, p.host)
				}
			}
			batch, taken[j] = append(batch, j), true
			continue
		}
		for _, p := range parts {
			delete(open, p.host) // a host that somebody before waits for
		}
		for _, h := range waits {
			delete(open, h)
		}
	}
	if len(batch) == 0 {
		return
	}
	s.queue = slices.DeleteFunc(s.queue, func(j *hostedJob) bool { return taken[j] })
	s.wg.Go(func() { s.deliverNew(batch) })
}

// maxDispatch bounds how many jobs go on their way at once.
const maxDispatch = 256

// requeue puts a job that no host has back to the head of the queue.
func (s *Hosts) requeue(j *hostedJob, reason string) {
	for _, p := range j.parts {
		s.release(p)
	}
	j.parts, j.reason = nil, reason
	if s.closed || j.over {
		return
	}
	if j.cancel {
		s.finish(j, adapters.Evidence{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
		return
	}
	s.queue = slices.Insert(s.queue, 0, j)
	s.feed.Publish(j.view())
}

// refuse notes that a host does not take a job, for now or ever.
func (s *Hosts) refuse(j *hostedJob, p *hostPart, err error) {
	sentence := fail.Sentence(err)
	if len(j.parts) > 1 { // the others have theirs, or will
		s.ended(j, p, adapters.Evidence{Phase: adapters.Stopped, NotRun: true, Reason: sentence, Ended: time.Now()})
		return
	}
	if err := s.assign(j, nil, true); err != nil {
		s.log().Error("a job can't be taken back from a host", "tag", j.tag, "error", err)
	}
	if adapters.ClassOf(err) != adapters.Permanent {
		j.avoid[p.host] = time.Now().Add(retryAfter)
		s.requeue(j, sentence)
		s.later()
		return
	}
	j.refused[p.host] = sentence
	for _, h := range s.hosts {
		if _, no := j.refused[h]; !no && s.plan(j, h).err == nil {
			s.requeue(j, sentence)
			s.dispatch()
			return
		}
	}
	s.finish(j, adapters.Evidence{Phase: adapters.Stopped, NotRun: true, Reason: sentence, Ended: time.Now()})
	s.dispatch()
}

// later tries again to give jobs to hosts.
func (s *Hosts) later() {
	if s.closed || s.retry != nil {
		return
	}
	s.retry = time.AfterFunc(retryAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.retry = nil
		s.dispatch()
	})
}

// errNoAnswer says that a part's fate is known only when its host is back.
func errNoAnswer(err error) bool { return errors.Is(err, errDown) || errors.Is(err, errLost) }
