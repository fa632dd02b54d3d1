package terms

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Summary says in plain sentences what an offer, a template or an agreement promises,
// its times in a zone (nil is UTC). The same agreement gives the same sentences. What is
// not understood is said to be.
func Summary(a *agreement.Agreement, zone *time.Location) []string {
	t := teller{zone: zone}
	if t.zone == nil {
		t.zone = time.UTC
	}
	alternatives, cut := agreement.Choose(a.Terms, a.Preferences(), maxAlternatives)
	var list []string
	if len(alternatives) == 0 {
		return []string{"Promises nothing."}
	}
	if len(alternatives) > 1 {
		more := ""
		if cut {
			more = "more than "
		}
		list = append(list, fmt.Sprintf("One of %s%d alternatives; the one that is preferred:", more, len(alternatives)))
	}
	x := *a
	x.Terms = alternatives[0].Terms
	q, err := read(&x)
	if err != nil {
		return append(list, t.unread(&x, err)...)
	}
	for i := range q.Services {
		list = append(list, t.service(q, &q.Services[i]))
	}
	for _, g := range q.Promises {
		list = append(list, t.guarantee(g, q))
	}
	if !q.Expiration.IsZero() {
		list = append(list, "The agreement ends at "+t.moment(q.Expiration)+".")
	}
	return list
}

type teller struct{ zone *time.Location }

// unread tells of an agreement that can't be read what it has.
func (t *teller) unread(a *agreement.Agreement, err error) []string {
	list := []string{"This gateway does not understand the agreement: " + fail.Sentence(err) + "."}
	for _, s := range a.Services() {
		var names []string
		for _, d := range s.Descriptions {
			if d.Description != nil {
				names = append(names, d.Description.Tag)
			}
		}
		if len(names) > 0 {
			list = append(list, fmt.Sprintf("The service ‘%s’ is described by %s.", short(s.Name), listed(names)))
		}
	}
	for _, g := range a.Guarantees() {
		list = append(list, t.guarantee(g, nil))
	}
	return list
}

func short(s string) string {
	if s = xmldoc.Collapse(s); len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// service says what is promised for one.
func (t *teller) service(q *Request, v *Service) string {
	var b strings.Builder
	if v.Capacity != nil {
		fmt.Fprintf(&b, "Keeps %s free%s %s", tellBooked(v.Capacity), t.at(v.Place), t.window(v.Window))
		b.WriteString(t.paid(v))
		return b.String() + "."
	}
	job := "a job"
	if v.Job != nil && v.Job.Name() != "" {
		job = "job ‘" + short(v.Job.Name()) + "’"
	}
	on := " on " + count(int64(max(1, v.Need.CPUs)), "CPU") + ofPlace(v.Place)
	before := ""
	if !v.NotBefore.IsZero() {
		before = ", not before " + t.moment(v.NotBefore)
	}
	limit := ""
	if v.Need.WallTime > 0 {
		limit = ", for " + span(time.Duration(v.Need.WallTime)*time.Second) + " at most"
	}
	switch q.Kind {
	case BestEffort, Capacity:
		fmt.Fprintf(&b, "Runs %s%s some time%s%s; nothing is promised of when", job, on, before, limit)
	case StartBy:
		fmt.Fprintf(&b, "Starts %s%s by %s%s%s", job, on, t.moment(v.StartBy), before, limit)
	case FinishBy:
		fmt.Fprintf(&b, "Finishes %s%s by %s%s%s", job, on, t.moment(v.FinishBy), before, limit)
		if !v.StartBy.IsZero() {
			b.WriteString(", and starts it by " + t.moment(v.StartBy))
		}
	case AdvanceReservation:
		fmt.Fprintf(&b, "Runs %s%s %s", job, on, t.window(v.Window))
	}
	b.WriteString(t.paid(v))
	return b.String() + "."
}

func (t *teller) paid(v *Service) string {
	if v.Price == nil {
		return ""
	}
	unit := v.Price.Unit
	if unit == "" {
		unit = DefaultUnit
	}
	return ", for " + money(decimal(v.Price.PerCPUHour), unit) + " a CPU-hour at most"
}

func (t *teller) at(p Place) string {
	if p.IsZero() {
		return " at any site"
	}
	return " at " + short(p.String())
}

func ofPlace(p Place) string {
	switch {
	case p.IsZero():
		return " of any site"
	case p.Site == "":
		return " of the share " + short(p.Share) + " of any site"
	}
	return " of " + short(p.String())
}

func tellBooked(b *Booking) string {
	switch a := b.Amount; {
	case a.CPUs > 0:
		return count(a.CPUs, "CPU")
	case a.Nodes > 0:
		return count(a.Nodes, "whole node")
	default:
		return count(a.Slots, "slot")
	}
}

func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.FormatInt(n, 10) + " " + what
}

// money says "5 credits"; units that are codes, as EUR is, have no plural.
func money(n, unit string) string {
	unit = short(unit)
	if n != "1" && unit != "" && unit == strings.ToLower(unit) && !strings.HasSuffix(unit, "s") {
		unit += "s"
	}
	return strings.TrimSpace(n + " " + unit)
}

const (
	hour = "15:04"
	day  = "Monday 2 January 2006"
)

// moment says "14:00 on Friday 27 November 2026 (CET)".
func (t *teller) moment(m time.Time) string {
	m = m.In(t.zone)
	return clock(m) + " on " + m.Format(day) + " (" + m.Format("MST") + ")"
}

func clock(m time.Time) string {
	if m.Second() != 0 || m.Nanosecond() != 0 {
		return m.Format("15:04:05")
	}
	return m.Format(hour)
}

// window says "between 14:00 and 16:00 on Friday 27 November 2026 (CET)".
func (t *teller) window(w Window) string {
	a, b := w.Start.In(t.zone), w.End.In(t.zone)
	if a.Format(day) == b.Format(day) && a.Format("MST") == b.Format("MST") {
		return "between " + clock(a) + " and " + t.moment(b)
	}
	return "from " + t.moment(a) + " until " + t.moment(b)
}

// span says "1 hour 30 minutes".
func span(d time.Duration) string {
	var parts []string
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.d; n > 0 {
			parts = append(parts, count(int64(n), u.name))
			d -= n * u.d
		}
	}
	if len(parts) == 0 {
		return "no time"
	}
	return strings.Join(parts, " ")
}

// guarantee says what is promised, and what is due for it; q is nil where the agreement is
// not understood.
func (t *teller) guarantee(g *agreement.Guarantee, q *Request) string {
	who := "The gateway"
	if g.Obligated == agreement.ServiceConsumer {
		who = "The user"
	}
	s := fmt.Sprintf("%s guarantees ‘%s’", who, short(g.Name))
	env := agreement.Environment{Variables: guarantee.KPIs()}
	if q != nil {
		for name, at := range q.constants(g.Scopes) {
			env.Variables[name] = agreement.Declared{Type: agreement.DateTime, Words: t.moment(at)}
		}
	}
	about := env
	if about.Target = g.KPIName; g.Level != nil {
		if x, err := agreement.ParseCondition(g.Level, about); err == nil {
			s += ": " + x.String()
		}
	}
	if g.QualifyingCondition != nil {
		if x, err := agreement.ParseCondition(g.QualifyingCondition, env); err == nil {
			s += ", as long as " + x.String()
		} else {
			s += ", under a condition"
		}
	}
	var services []string
	for _, x := range g.Scopes {
		if x.ServiceName == "" { // all of them
			services = nil
			break
		}
		services = append(services, "‘"+short(x.ServiceName)+"’")
	}
	if q != nil && len(q.Services) > 1 && len(services) > 0 {
		s += ", of " + listed(services)
	}
	owed := func(list []agreement.Compensation) string {
		var amounts []string
		plural := len(list) > 1
		for i := range list {
			amount, many := t.due(&list[i])
			amounts, plural = append(amounts, amount), plural || many
		}
		if plural {
			return listed(amounts) + " are due"
		}
		return listed(amounts) + " is due"
	}
	if len(g.Values.Penalties) > 0 {
		s += "; if not, " + owed(g.Values.Penalties)
	} else {
		s += "; if not, nothing is due"
	}
	if len(g.Values.Rewards) > 0 {
		s += "; if so, " + owed(g.Values.Rewards)
	}
	return s + "."
}

// due says what a compensation comes to: "5 credits", and that it is several.
func (t *teller) due(c *agreement.Compensation) (amount string, plural bool) {
	amount = "an amount that is worked out then"
	if c.Expression != nil && len(c.Expression.ChildElements()) == 0 {
		if text := xmldoc.Collapse(xmldoc.Text(c.Expression)); text != "" && len(text) <= 32 {
			amount = money(text, c.Unit)
			plural = text != "1"
		}
	}
	switch {
	case c.Interval != "":
		amount += " for each " + short(c.Interval)
	case c.Count > 1:
		amount += fmt.Sprintf(" for each %d times", c.Count)
	}
	return amount, plural
}
