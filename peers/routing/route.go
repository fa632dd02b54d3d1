package routing

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Situation is one job that waits for a place, and all that is known.
type Situation struct {
	Own      string // the domain that this gateway speaks for
	Snapshot *resourcemodel.Snapshot
	Request  *resourcemodel.Request
	Derived  resourcemodel.Derived
	Peers    []Peer
	// Path is the way that the job came, without this domain: empty for an own job. Hops is
	// how many more it may make.
	Path []string
	Hops int
	// Refused says of domains that refused it or gave it back, not long ago, why.
	Refused map[string]string
	// Survey tells what a domain has, "" being our own, for those who know more of it than
	// the snapshot does: what was given away since. Nil looks at the snapshot.
	Survey func(domain string) Survey
	// Overflowing is what Route said last: while it is so, jobs flow out until the own wait
	// has fallen to Recover.
	Overflowing bool
}

// Choice is a domain that could take the job.
type Choice struct {
	Domain string // "" is our own sites
	Now    bool   // it could start there now, as far as is known
	Sure   bool   // what is shown of the domain leaves no doubt that it can run it
	Wait   time.Duration
	Known  bool    // the wait is
	Score  float64 // of peers, 0 to 1
	Why    string  // a sentence for the history
	soft   float64
	// Spot is the best place of a peer, as it shows it.
	Spot resourcemodel.Spot
	last bool // we owe it too much
	// Bought is that room is ours there in which it fits.
	Bought bool
}

// Excluded is a domain that can't take the job, with the reason.
type Excluded struct{ Domain, Why string }

// Decision is the order in which domains are asked.
type Decision struct {
	Choices []Choice // the best first; the job stays where it is if there is none
	Out     []Excluded
	// Overflowing says that the own sites are too full: see Situation.
	Overflowing bool
}

// softSteps is how finely soft criteria are told apart, as the broker's own ranking does.
const softSteps = 20

// Route orders the domains for a job. Own sites come first while the job would start there
// or wait no longer than the policy bears. Above that, peers come first at which it would
// wait sufficiently less; the rest of them come after the own sites, for the case that
// these refuse it. Among peers the job's soft criteria decide, in steps, and within a step
// what is known of the peer. Peers of whom room was bought come before all others, and
// before the own sites unless the job would start there at once: it is paid for.
func Route(s Situation, p Policy) Decision {
	own := s.survey("", p)
	bears := p.Overload
	if s.Overflowing {
		bears = p.Recover
	}
	out := Decision{Overflowing: own.Fits && !own.Now && (!own.Known || own.Wait > bears)}
	if !own.Fits {
		out.Overflowing = s.Overflowing // it tells nothing of how full they are
		out.Out = append(out.Out, Excluded{"", own.Why})
	}
	var peers []Choice
	for i := range s.Peers {
		if c, why := s.consider(&s.Peers[i], p); why != "" {
			out.Out = append(out.Out, Excluded{s.Peers[i].Domain, why})
		} else {
			peers = append(peers, c)
		}
	}
	s.grade(peers)
	slices.SortStableFunc(peers, compareChoices)
	if !own.Fits {
		out.Choices = peers
		return out
	}
	home := Choice{Domain: "", Now: own.Now, Sure: own.Sure, Wait: own.Wait, Known: own.Known, Why: "its own sites come first"}
	var before, after []Choice
	for _, c := range peers {
		gains := c.Known && (!own.Known || float64(c.Wait) < float64(own.Wait)*p.Gain)
		if c.Bought && !own.Now {
			c.Why = "the own sites have no room for it now, and " + c.Why
			before = append(before, c)
		} else if out.Overflowing && gains {
			c.Why = "the own sites are too full, and " + c.Why
			before = append(before, c)
		} else {
			after = append(after, c)
		}
	}
	if len(before) > 0 && !before[len(before)-1].Bought {
		home.Why = "the own sites are too full, and no other domain is left that would be faster"
	}
	out.Choices = slices.Concat(before, []Choice{home}, after)
	return out
}

func (s *Situation) survey(domain string, p Policy) Survey {
	if s.Survey != nil {
		return s.Survey(domain)
	}
	return Look(s.Snapshot, domain, s.Request, s.Derived, p)
}

// consider looks at one peer; why says what stands against it.
func (s *Situation) consider(peer *Peer, p Policy) (c Choice, why string) {
	switch {
	case peer.Domain == s.Own || slices.Contains(s.Path, peer.Domain):
		return c, "the job has come through it"
	case len(s.Path) > 0 && p.Keep:
		return c, "jobs of other domains are not forwarded here"
	case s.Hops <= 0:
		return c, "the job has made all hops that its origin allows"
	case s.Refused[peer.Domain] != "":
		return c, s.Refused[peer.Domain]
	case peer.Away != "":
		return c, peer.Away
	case p.MostGiven > 0 && peer.Given >= p.MostGiven && peer.Bought == "":
		return c, "it has as many of our jobs as the policy allows"
	}
	v := s.survey(peer.Domain, p)
	if !v.Fits {
		if v.Why == "" {
			v.Why = "none of what it shows fits"
		}
		return c, v.Why
	}
	c = Choice{Domain: peer.Domain, Now: v.Now, Sure: v.Sure, Wait: v.Wait, Known: v.Known, Spot: v.Spot}
	// What a peer promises is held against what our jobs met with there.
	if m := peer.Measured; m.Jobs > 0 {
		trust := float64(m.Jobs) / float64(m.Jobs+4)
		if c.Known {
			c.Wait = time.Duration((1-trust)*float64(c.Wait) + trust*float64(max(c.Wait, m.Wait)))
		} else {
			c.Wait, c.Known = m.Wait, true
		}
	}
	c.Wait += p.Hop
	c.Score = s.score(peer, v, c, p)
	surplus := peer.Balance.Surplus()
	c.last = p.MostOwed > 0 && surplus > p.MostOwed
	if peer.Bought != "" { // whatever it shows, and whatever we owe it beside
		c.Bought, c.Now, c.Known, c.Wait, c.last = true, true, true, p.Hop, false
	}
	switch {
	case c.Bought:
		c.Why = peer.Bought
	case c.Now:
		c.Why = "the domain " + peer.Domain + " could start it now"
	case c.Known:
		c.Why = "it would wait about " + c.Wait.Round(time.Second).String() + " at the domain " + peer.Domain
	default:
		c.Why = "the domain " + peer.Domain + " could run it"
	}
	return c, ""
}

// score grades a peer between 0 and 1.
func (s *Situation) score(peer *Peer, v Survey, c Choice, p Policy) float64 {
	sure := 1.0
	if v.Spot.Site != nil && v.Spot.Site.Static != nil {
		sure -= p.Doubt * float64(min(v.Spot.Site.Static.Detail, resourcemodel.None))
	}
	if !v.Sure {
		sure *= 1 - p.Doubt
	}
	room := sure * float64(v.Room) / float64(1+v.Room)
	wait := 0.0
	if c.Known {
		wait = sure * float64(p.Typical) / float64(p.Typical+c.Wait)
	}
	speed, success := 0.5, 0.5
	if m := peer.Measured; m.Jobs > 0 {
		// Few jobs tell little.
		trust := float64(m.Jobs) / float64(m.Jobs+4)
		speed += trust * (unit(m.Speed/(1+m.Speed)) - 0.5)
		success += trust * (unit(m.Success) - 0.5)
	}
	sum := p.Room + p.Wait + p.Speed + p.Success + p.Favour
	if sum == 0 {
		return 0
	}
	return (p.Room*room + p.Wait*wait + p.Speed*speed + p.Success*success + p.Favour*favour(peer)) / sum
}

// favour is above a half for a peer that owes us, below for one that we owe.
func favour(peer *Peer) float64 {
	b := peer.Balance
	gave, got := float64(b.Did+b.Unheard), float64(b.Got+b.Unclaimed)
	// A CPU hour more or less is nothing among those who hardly know each other.
	return unit(0.5 + 0.5*(gave-got)/(gave+got+float64(handover.CPUHour)))
}

// unit keeps a number between 0 and 1; what is no number is 0.
func unit(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return min(max(x, 0), 1)
}

// grade gives the satisfaction of the soft criteria over all choices.
func (s *Situation) grade(choices []Choice) {
	spots := make([]resourcemodel.Spot, len(choices))
	for i := range choices {
		spots[i] = choices[i].Spot
	}
	for i, x := range s.Request.SoftScore(spots, s.Derived) {
		choices[i].soft = math.Floor(unit(x)*softSteps + 1e-9)
	}
}

func compareChoices(a, b Choice) int {
	last := func(c Choice) int {
		if c.last {
			return 1
		}
		return 0
	}
	paid := func(c Choice) int {
		if c.Bought {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(paid(a), paid(b)), cmp.Compare(last(a), last(b)), cmp.Compare(b.soft, a.soft), cmp.Compare(b.Score, a.Score), strings.Compare(a.Domain, b.Domain))
}
