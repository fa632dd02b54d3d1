package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
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
	// ForVO lets every job of the VO use it or, where it is no VO's, every job of the owner that is for
	// none. Else only jobs do whose promise names it.
	ForVO bool `json:"forVO,omitempty"`
	// ForDomain is a domain whose gateway bought the room: the jobs that it gives us by the name of the
	// agreement use it.
	ForDomain string `json:"forDomain,omitempty"`
	// AtManager says that the site's manager keeps it, by a reservation of its own: it shows
	// the room as taken, and nothing is kept here beside that.
	AtManager bool `json:"atManager,omitempty"`
}

// mine reports whether jobs of a VO, or those whose promise names the room, may use it.
func (h *Hold) mine(room, vo string) bool {
	return room != "" && (h.ID == room || h.bought(room) || h.own(room)) || h.ForVO && h.VO != "" && h.VO == vo
}

// boughtRoom begins the rooms of jobs that run in what one domain bought of another.
const boughtRoom = "bought:"

// BoughtRoom names the room that was bought by an agreement: with who bought it, where it is held, and
// with the site that the other domain is, where it was bought.
func BoughtRoom(with, agreement string) string { return boughtRoom + with + "/" + agreement }

// bought reports whether a room is this one, by the domain that bought it and its agreement.
func (h *Hold) bought(room string) bool {
	agreement, ok := h.sold(room)
	return ok && h.Agreement != "" && agreement == h.Agreement
}

// sold reports whether a room was bought by the domain that this one was sold to, and by which agreement.
func (h *Hold) sold(room string) (agreement string, ok bool) {
	if h.ForDomain == "" {
		return "", false
	}
	rest, ok := strings.CutPrefix(room, boughtRoom)
	if !ok {
		return "", false
	}
	rest, ok = strings.CutPrefix(rest, h.ForDomain)
	if !ok {
		return "", false
	}
	return strings.CutPrefix(rest, "/")
}

// ownRoom begins the rooms of jobs that are for no VO.
const ownRoom = "own:"

// OwnRoom names what an owner holds for themself, without a VO.
func OwnRoom(owner string) string { return ownRoom + owner }

// own reports whether a room is this one, as it is held by the owner for no VO.
func (h *Hold) own(room string) bool {
	owner, ok := strings.CutPrefix(room, ownRoom)
	return ok && owner != "" && h.ForVO && h.VO == "" && h.Owner == owner
}

// roomOf gives the room that a job which has a place may be in.
func roomOf(j *policy.Job) string {
	if j.Room == "" && j.VO == "" {
		return OwnRoom(j.Owner)
	}
	return j.Room
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

// before orders holds by when they begin.
func (h *Hold) before(o *Hold) int { return cmp.Or(h.From.Compare(o.From), cmp.Compare(h.ID, o.ID)) }

// Kept is what the holds on a share leave. It works out what is left at a moment when that is asked for: there are as
// many moments as windows, and what a job needs to know of is those in which it runs.
type Kept struct {
	has   Amount
	now   time.Time
	holds []*Hold // in the order of their beginnings
	next  int     // the first of them whose window begins after the last moment
	open  []*Hold // those whose windows have begun by then and are not over
	begun int     // how many of them begin by now
	left  Amount  // beside what is held, then
	ends  []*Busy // that end after the last moment, the first first
	users []*Busy // that may have what is held for them

	moments []moment
}

// moment is one at which less may be left than before: now, or as a window begins.
type moment struct {
	at   time.Time
	left Amount // beside what is held
	held []part
}

// part is what of a hold nobody uses.
type part struct {
	hold *Hold
	Amount
}

// Keep works out what holds, in the order of their beginnings, leave of a share: for a job that would start now, and for
// one that queues there. Between the moments that it looks at there is never less: jobs end,
// and so do windows.
func Keep(st Standing, holds []*Hold, now time.Time) *Kept {
	k := &Kept{has: st.Has, now: now, holds: holds, left: st.Free}
	for i := range st.Busy {
		b := &st.Busy[i]
		if b.ended(now) {
			k.left = k.left.plus(b.Amount, 1)
			continue
		}
		if !b.Until.IsZero() {
			k.ends = append(k.ends, b)
		}
		if b.Room != "" || b.VO != "" {
			k.users = append(k.users, b)
		}
	}
	slices.SortFunc(k.ends, func(a, b *Busy) int { return a.Until.Compare(b.Until) })
	for k.begin(now) {
		k.next++
	}
	k.begun = k.next
	k.look(now)
	return k
}

// begin counts the next hold if its window has begun by a moment; false: it has not, or there is none.
func (k *Kept) begin(at time.Time) bool {
	if k.next == len(k.holds) || k.holds[k.next].From.After(at) {
		return false
	}
	if h := k.holds[k.next]; k.counts(h) && h.Until.After(at) {
		k.open = append(k.open, h)
	}
	return true
}

// counts reports whether anything is kept here for a hold.
func (k *Kept) counts(h *Hold) bool {
	return !h.AtManager && h.Until.After(k.now) && h.Until.After(h.From)
}

// any reports whether anything is kept at any moment.
func (k *Kept) any() bool { return slices.ContainsFunc(k.holds, k.counts) }

// amount gives what of the share a hold has.
func (k *Kept) amount(h *Hold) Amount {
	a := Amount{h.Slots, h.CPUs}
	if k.has.Slots <= 0 { // nobody counts them
		if a.CPUs == 0 {
			a.CPUs = a.Slots
		}
		a.Slots = 0
	}
	if k.has.CPUs <= 0 {
		a.CPUs = 0
	}
	return a
}

// moment gives one of the moments, now first; nil: there are no more.
func (k *Kept) moment(i int) *moment {
	for i >= len(k.moments) {
		for k.next < len(k.holds) && !k.counts(k.holds[k.next]) {
			k.next++
		}
		if k.next == len(k.holds) {
			return nil
		}
		at := k.holds[k.next].From
		k.open = slices.DeleteFunc(k.open, func(h *Hold) bool { return !h.Until.After(at) })
		for k.begin(at) {
			k.next++
		}
		k.look(at)
	}
	return &k.moments[i]
}

// look works out the next moment.
func (k *Kept) look(at time.Time) {
	for len(k.ends) > 0 && k.ends[0].ended(at) {
		k.left = k.left.plus(k.ends[0].Amount, 1)
		k.ends = k.ends[1:]
	}
	m := moment{at: at, left: k.left, held: make([]part, 0, len(k.open))}
	for _, h := range k.open {
		if a := k.amount(h); a != (Amount{}) {
			m.held = append(m.held, part{h, a})
		}
	}
	if len(m.held) > 0 {
		for _, b := range k.users {
			if !b.ended(at) {
				m.use(b)
			}
		}
	}
	for i := range m.held {
		m.left = m.left.plus(m.held[i].Amount, -1)
	}
	k.moments = append(k.moments, m)
}

// use lets a job have what is held for it. One that is in room which a domain bought, and outlasts that, has
// what the domain has bought by then: nobody else is to find less for it.
func (m *moment) use(b *Busy) {
	a, in := b.Amount, false
	take := func(h *part) {
		used := Amount{min(a.Slots, h.Slots), min(a.CPUs, h.CPUs)}
		h.Amount, a = h.plus(used, -1), a.plus(used, -1)
	}
	for i := range m.held {
		if h := &m.held[i]; h.hold.mine(b.Room, b.VO) {
			in = true
			take(h)
		}
	}
	if in || !strings.HasPrefix(b.Room, boughtRoom) {
		return
	}
	for i := range m.held {
		h := &m.held[i]
		if _, sold := h.hold.sold(b.Room); sold {
			take(h)
		}
	}
}

// fit gives how many times a need goes into what is left at a moment for those who may use
// the holds that are theirs.
func (k *Kept) fit(m *moment, need Amount, mine func(*Hold) bool) int {
	left := m.left
	for i := range m.held {
		if h := &m.held[i]; h.Amount != (Amount{}) && mine(h.hold) {
			left = left.plus(h.Amount, 1)
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

// reaches reports whether there is such a moment, and a job of a length (0: without end) that starts now runs then.
func (k *Kept) reaches(i int, length time.Duration) bool {
	if i >= len(k.moments) && length > 0 && i > 0 {
		for k.next < len(k.holds) && !k.counts(k.holds[k.next]) {
			k.next++
		}
		if k.next == len(k.holds) || !k.holds[k.next].From.Before(k.now.Add(length)) {
			return false // it need not be worked out
		}
	}
	m := k.moment(i)
	return m != nil && (i == 0 || length <= 0 || m.at.Before(k.now.Add(length)))
}

// Room gives how many jobs of a need and length may start now without having, at any moment,
// what is held for others. A length of 0 is that nobody knows it, and they may run for ever.
func (k *Kept) Room(need Amount, length time.Duration, mine func(*Hold) bool) int {
	n := math.MaxInt32
	for i := 0; n > 0 && k.reaches(i, length); i++ {
		n = min(n, k.fit(&k.moments[i], need, mine))
	}
	return n
}

// Queue gives how many such jobs may queue at the site. When one starts there is the manager's to
// say, so that it may have the room in every window.
func (k *Kept) Queue(need Amount, mine func(*Hold) bool) int {
	n := math.MaxInt32
	for i := 0; n > 0; i++ {
		m := k.moment(i)
		if m == nil {
			break
		}
		if i == 0 && !slices.ContainsFunc(k.holds[:k.begun], func(h *Hold) bool { return k.counts(h) && !mine(h) }) {
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
	for _, h := range k.holds[:k.begun] {
		if h.ID == room && k.counts(h) {
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
	for i := 0; k.reaches(i, length); i++ {
		m := &k.moments[i]
		if k.fit(m, need, mine) > 0 {
			continue
		}
		for j := range m.held {
			if h := &m.held[j]; h.Amount != (Amount{}) && !mine(h.hold) {
				return h.hold
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
	a := k.amount(h)
	held, all, what := a.Slots, k.has.Slots, "slot"
	if held == 0 {
		held, all, what = a.CPUs, k.has.CPUs, "CPU"
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
func Earliest(st Standing, queue []Planned, holds []*Hold, need Amount, length time.Duration, mine func(*Hold) bool, now time.Time) Outlook {
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
	holds []*Hold // in the order of their beginnings
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
func (c *calendar) standing(at time.Time) (Standing, []*Hold) {
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
			holds = append(slices.Clip(holds), &Hold{Slots: p.Slots, CPUs: p.CPUs, From: p.from, Until: until})
		}
	}
	if len(holds) > len(c.holds) {
		slices.SortFunc(holds, (*Hold).before)
	}
	return out, holds
}

// earliest gives the first moment at which a job could start and run for its length; zero is none.
func (c *calendar) earliest(need Amount, length time.Duration, mine func(*Hold) bool) time.Time {
	if c.fits(c.now, need, length, mine) { // mostly so, and then nothing else is to be looked at
		return c.now
	}
	var times []time.Time
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
		if mine(c.holds[i]) {
			add(c.holds[i].From)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	times = slices.CompactFunc(times, time.Time.Equal)
	if step := (len(times) + maxMoments - 1) / maxMoments; step > 1 {
		thin := times[:0]
		for i := step - 1; i < len(times)-1; i += step {
			thin = append(thin, times[i])
		}
		times = append(thin, times[len(times)-1])
	}
	for _, t := range times {
		if c.fits(t, need, length, mine) {
			return t
		}
	}
	return time.Time{}
}

func (c *calendar) fits(t time.Time, need Amount, length time.Duration, mine func(*Hold) bool) bool {
	st, holds := c.standing(t)
	return Keep(st, holds, t).Room(need, length, mine) > 0
}

// amountOf gives what a job takes of a share.
func amountOf(j *policy.Job) Amount {
	n := j.Need()
	return Amount{max(n.Slots, 1), max(n.CPUs, 1)}
}
