package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Hold is room of a site that is promised to somebody for a window of time. It is kept by
// the gateway's own calendar: jobs of others are not placed where they would still have the
// room when the window begins.
type Hold struct {
	ID        string            `json:"id"`
	Agreement string            `json:"agreement,omitempty"` // that promises it, for people
	Key       resourcemodel.Key `json:"key"`
	Share     string            `json:"share"`
	Slots     int               `json:"slots,omitempty"`
	CPUs      int               `json:"cpus,omitempty"`
	From      time.Time         `json:"from"`
	Until     time.Time         `json:"until"`
	Owner     string            `json:"owner,omitempty"`
	VO        string            `json:"vo,omitempty"`
	// ForVO lets every job of the VO use it. Else only jobs do whose promise names it.
	ForVO bool `json:"forVO,omitempty"`
	// AtManager says that the site's manager keeps it, by a reservation of its own: it shows
	// the room as taken, and nothing is kept here beside that.
	AtManager bool `json:"atManager,omitempty"`
}

// mine reports whether jobs of a VO, or those whose promise names the room, may use it.
func (h *Hold) mine(room, vo string) bool {
	return room != "" && h.ID == room || h.ForVO && h.VO != "" && h.VO == vo
}

// Amount is room of a share: jobs at once and CPUs.
type Amount struct{ Slots, CPUs int }

func (a Amount) plus(b Amount, sign int) Amount {
	return Amount{a.Slots + sign*b.Slots, a.CPUs + sign*b.CPUs}
}

// over gives the amount without what is below zero.
func (a Amount) over() Amount { return Amount{max(a.Slots, 0), max(a.CPUs, 0)} }

// Busy is a job of ours that has room of a share, or is to get some.
type Busy struct {
	Amount
	// Until is when it has ended, by what it declared; zero is that nobody knows.
	Until time.Time
	Room  string // the hold that its promise names; "" is none
	VO    string
}

// ended reports whether it has left its room by a moment.
func (b *Busy) ended(at time.Time) bool { return !b.Until.IsZero() && !b.Until.After(at) }

// Standing is how a share stands at a moment.
type Standing struct {
	Has  Amount // altogether; 0 is that nothing is counted there
	Free Amount // of it, that no job has; below zero where more were given than there is
	Busy []Busy // jobs of ours that have what is not free. Others' are taken never to end
	// Untold is how many more jobs there are behind those of Busy that nobody knows the end of.
	Untold int
}

// Kept is what the holds on a share leave.
type Kept struct {
	has     Amount
	now     time.Time
	holds   []Hold // that are not over, in order of their beginnings
	moments []moment
}

// moment is one at which less may be left than before: now, or as a window begins.
type moment struct {
	at   time.Time
	left Amount   // beside what is held
	held []Amount // what of each hold nobody uses, by its index; zero where its window is another
}

// Keep works out what holds leave of a share: for a job that would start now, and for one
// that queues there. Between the moments that it looks at there is never less: jobs end,
// and so do windows.
func Keep(st Standing, holds []Hold, now time.Time) *Kept {
	k := &Kept{has: st.Has, now: now}
	times := []time.Time{now}
	for _, h := range holds {
		if h.AtManager || !h.Until.After(now) || !h.Until.After(h.From) {
			continue
		}
		if st.Has.Slots <= 0 { // nobody counts them
			if h.CPUs == 0 {
				h.CPUs = h.Slots
			}
			h.Slots = 0
		}
		if st.Has.CPUs <= 0 {
			h.CPUs = 0
		}
		k.holds = append(k.holds, h)
		if h.From.After(now) {
			times = append(times, h.From)
		}
	}
	slices.SortFunc(k.holds, func(a, b Hold) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(times, time.Time.Compare)
	times = slices.CompactFunc(times, time.Time.Equal)
	for _, at := range times {
		m := moment{at: at, left: st.Free, held: make([]Amount, len(k.holds))}
		for i := range k.holds {
			if h := &k.holds[i]; !h.From.After(at) && h.Until.After(at) {
				m.held[i] = Amount{h.Slots, h.CPUs}
			}
		}
		for i := range st.Busy {
			b := &st.Busy[i]
			if b.ended(at) {
				m.left = m.left.plus(b.Amount, 1)
			} else {
				k.use(&m, b)
			}
		}
		for i := range m.held {
			m.left = m.left.plus(m.held[i], -1)
		}
		k.moments = append(k.moments, m)
	}
	return k
}

// use lets a job have what is held for it.
func (k *Kept) use(m *moment, b *Busy) {
	if b.Room == "" && b.VO == "" {
		return
	}
	a := b.Amount
	for i := range m.held {
		if h := m.held[i]; h != (Amount{}) && k.holds[i].mine(b.Room, b.VO) {
			part := Amount{min(a.Slots, h.Slots), min(a.CPUs, h.CPUs)}
			m.held[i], a = h.plus(part, -1), a.plus(part, -1)
		}
	}
}

// fit gives how many times a need goes into what is left at a moment for those who may use
// the holds that are theirs.
func (k *Kept) fit(m *moment, need Amount, mine func(*Hold) bool) int {
	left := m.left
	for i := range m.held {
		if m.held[i] != (Amount{}) && mine(&k.holds[i]) {
			left = left.plus(m.held[i], 1)
		}
	}
	n := math.MaxInt32
	if k.has.Slots > 0 {
		n = min(n, left.over().Slots/max(need.Slots, 1))
	}
	if k.has.CPUs > 0 {
		n = min(n, left.over().CPUs/max(need.CPUs, 1))
	}
	return n
}

// Room gives how many jobs of a need and length may start now without having, at any moment,
// what is held for others. A length of 0 is that nobody knows it, and they may run for ever.
func (k *Kept) Room(need Amount, length time.Duration, mine func(*Hold) bool) int {
	n := math.MaxInt32
	for i := range k.moments {
		m := &k.moments[i]
		if i > 0 && length > 0 && !m.at.Before(k.now.Add(length)) {
			break
		}
		n = min(n, k.fit(m, need, mine))
	}
	return n
}

// Queue gives how many such jobs may queue at the site. When one starts there is the manager's to
// say, so that it may have the room in every window.
func (k *Kept) Queue(need Amount, mine func(*Hold) bool) int {
	n := math.MaxInt32
	for i := range k.moments {
		m := &k.moments[i]
		if i == 0 && !slices.ContainsFunc(k.holds, func(h Hold) bool { return !h.From.After(k.now) && !mine(&h) }) {
			continue // it waits for what jobs have that no window keeps from it
		}
		n = min(n, k.fit(m, need, mine))
	}
	return n
}

// within gives for how long a job is to be reckoned with before it starts, at most until the window of its own
// room is over: that it began some seconds late, and may end so, is no reason not to give it what was
// promised.
func (k *Kept) within(room string, length time.Duration) time.Duration {
	if room == "" {
		return length
	}
	for i := range k.holds {
		if h := &k.holds[i]; h.ID == room && !h.From.After(k.now) {
			if left := h.Until.Sub(k.now); length <= 0 || length > left {
				return left
			}
		}
	}
	return length
}

// against gives the first hold of others that stands against a job which would start now, and when
// that hold begins; nil where none does.
func (k *Kept) against(need Amount, length time.Duration, mine func(*Hold) bool) *Hold {
	for i := range k.moments {
		m := &k.moments[i]
		if i > 0 && length > 0 && !m.at.Before(k.now.Add(length)) {
			return nil
		}
		if k.fit(m, need, mine) > 0 {
			continue
		}
		for j := range k.holds {
			if m.held[j] != (Amount{}) && !mine(&k.holds[j]) {
				return &k.holds[j]
			}
		}
	}
	return nil
}

// why says in a sentence what stands against a job at a share, and what would help; "" where no hold
// does.
func (k *Kept) why(share string, need Amount, length time.Duration, mine func(*Hold) bool) string {
	h := k.against(need, length, mine)
	if h == nil {
		return ""
	}
	held, all, what := h.Slots, k.has.Slots, "slot"
	if held == 0 {
		held, all, what = h.CPUs, k.has.CPUs, "CPU"
	}
	s := fmt.Sprintf("%d of %s of %s are promised from %s to %s", held, count(all, what), share, said(h.From), said(h.Until))
	left := h.From.Sub(k.now).Truncate(time.Minute)
	switch {
	case !h.From.After(k.now):
		return s + ": it waits until room is left, or that window is over"
	case left <= 0:
		return s + ": it waits until that window is over"
	case length <= 0:
		return s + ": it would have to end before " + said(h.From) + "; give it a WallTimeLimit of at most " + words(left)
	}
	return s + ": it would have to end before " + said(h.From) + ", and its WallTimeLimit is " + words(length) + "; give it one of at most " + words(left)
}

func said(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// words gives a duration without parts that are zero: "2h", "1h30m".
func words(d time.Duration) string {
	s := d.Round(time.Second).String()
	if len(s) > 2 && s[len(s)-2:] == "0s" && s[len(s)-3] == 'm' {
		s = s[:len(s)-2]
	}
	if len(s) > 2 && s[len(s)-2:] == "0m" && s[len(s)-3] == 'h' {
		s = s[:len(s)-2]
	}
	return s
}

// maxPlanned bounds the jobs of a queue that Earliest goes through one by one, and maxMoments the
// moments at which it looks: of more, only so many, so that what it tells may be a little later than need be.
const (
	maxPlanned = 64
	maxMoments = 512
)

// Planned is a job that queues at a share, in its order.
type Planned struct {
	Amount
	Length time.Duration // 0: nobody knows
	Room   string
	VO     string
}

// Outlook is when a job could start at the earliest.
type Outlook struct {
	// Start is the moment; zero where nobody can tell one.
	Start time.Time `json:"start,omitzero"`
	// Never is that the share has not as much as the job asks for.
	Never bool `json:"never,omitempty"`
	// Unknown is how many jobs there, running or waiting, do not say how long they run: they
	// are taken to run for ever, and it may be sooner.
	Unknown int `json:"unknown,omitempty"`
	// Sentence says it for people.
	Sentence string `json:"sentence"`
}

// Earliest works out when a job of a need and length could start at a share that stands so, behind
// the jobs that queue there, and without having what is held for others. Jobs are taken to run
// for as long as they declared.
func Earliest(st Standing, queue []Planned, holds []Hold, need Amount, length time.Duration, mine func(*Hold) bool, now time.Time) Outlook {
	if st.Has.Slots > 0 && need.Slots > st.Has.Slots || st.Has.CPUs > 0 && need.CPUs > st.Has.CPUs {
		return Outlook{Never: true, Sentence: fmt.Sprintf("it has %s and %s, and never so many as are asked for", count(st.Has.Slots, "slot"), count(st.Has.CPUs, "CPU"))}
	}
	out := Outlook{Unknown: st.Untold}
	for i := range st.Busy {
		if st.Busy[i].Until.IsZero() {
			out.Unknown++
		}
	}
	c := calendar{st: st, holds: holds, now: now}
	for i, q := range queue {
		if q.Length <= 0 {
			out.Unknown++
		}
		if i >= maxPlanned {
			continue
		}
		at := c.earliest(q.Amount, q.Length, func(h *Hold) bool { return h.mine(q.Room, q.VO) })
		if at.IsZero() {
			continue // it waits for what never ends, and others go by
		}
		c.plan(q, at)
	}
	out.Start = c.earliest(need, length, mine)
	switch {
	case out.Start.IsZero():
		out.Sentence = fmt.Sprintf("nobody can tell when it could start: %s there do not say how long they run", count(out.Unknown, "job"))
		if out.Unknown == 0 {
			out.Sentence = "it could not start there as long as what is promised to others, or others' jobs, have the room"
		}
	case out.Start.Equal(now):
		out.Sentence = "it could start now"
	default:
		out.Sentence = "it could start at " + said(out.Start) + " at the earliest"
		if out.Unknown > 0 {
			out.Sentence += fmt.Sprintf(", or sooner: %s there do not say how long they run", count(out.Unknown, "job"))
		}
	}
	return out
}

// calendar is a share's with jobs that are to begin later.
type calendar struct {
	st    Standing
	holds []Hold
	now   time.Time
	plans []plannedAt
}

type plannedAt struct {
	Busy
	from time.Time
}

// plan files a job that queues.
func (c *calendar) plan(q Planned, at time.Time) {
	p := plannedAt{Busy: Busy{Amount: q.Amount, Room: q.Room, VO: q.VO}, from: at}
	if q.Length > 0 {
		p.Until = at.Add(q.Length)
	}
	c.plans = append(c.plans, p)
}

// standing gives how the share stands at a moment, by what was planned.
func (c *calendar) standing(at time.Time) (Standing, []Hold) {
	out := Standing{Has: c.st.Has, Free: c.st.Free}
	for i := range c.st.Busy {
		if b := c.st.Busy[i]; b.ended(at) {
			out.Free = out.Free.plus(b.Amount, 1)
		} else {
			out.Busy = append(out.Busy, b)
		}
	}
	holds := c.holds
	for i := range c.plans {
		switch p := &c.plans[i]; {
		case p.ended(at):
		case !p.from.After(at):
			out.Free = out.Free.plus(p.Amount, -1)
			out.Busy = append(out.Busy, p.Busy)
		default: // its room is held for it, until it has ended
			until := p.Until
			if until.IsZero() {
				until = at.AddDate(100, 0, 0)
			}
			holds = append(slices.Clip(holds), Hold{Slots: p.Slots, CPUs: p.CPUs, From: p.from, Until: until})
		}
	}
	return out, holds
}

// earliest gives the first moment at which a job could start and run for its length; zero is none.
func (c *calendar) earliest(need Amount, length time.Duration, mine func(*Hold) bool) time.Time {
	times := []time.Time{c.now}
	add := func(t time.Time) {
		if t.After(c.now) {
			times = append(times, t)
		}
	}
	for i := range c.st.Busy {
		add(c.st.Busy[i].Until)
	}
	for i := range c.plans {
		add(c.plans[i].Until)
	}
	for i := range c.holds {
		add(c.holds[i].Until)
		if mine(&c.holds[i]) {
			add(c.holds[i].From)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	times = slices.CompactFunc(times, time.Time.Equal)
	if step := (len(times) + maxMoments - 1) / maxMoments; step > 1 {
		thin := times[:1]
		for i := step; i < len(times)-1; i += step {
			thin = append(thin, times[i])
		}
		times = append(thin, times[len(times)-1])
	}
	for _, t := range times {
		st, holds := c.standing(t)
		if Keep(st, holds, t).Room(need, length, mine) > 0 {
			return t
		}
	}
	return time.Time{}
}

// amountOf gives what a job takes of a share.
func amountOf(j *policy.Job) Amount {
	n := j.Need()
	return Amount{max(n.Slots, 1), max(n.CPUs, 1)}
}
