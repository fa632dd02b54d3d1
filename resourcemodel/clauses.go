package resourcemodel

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// elementAllocation marks the clauses that name their own elements.
const elementAllocation = "(allocation)"

// staticClauses are the wishes that only somebody who changes the site can meet.
func (c *compiler) staticClauses() {
	r, res := c.request, c.resources
	add := func(one clause) { r.clauses = append(r.clauses, one) }

	add(clause{element: "VO", met: func(p *at) bool {
		return p.static.Policy.Allows(p.request.Subject) && p.Share.Policy.Allows(p.request.Subject)
	}, tell: tellVO})
	if hosts := res.CandidateHosts; len(hosts) > 0 {
		asked := listed(quotedAll(hosts), "or")
		add(clause{element: "CandidateHosts", met: func(p *at) bool { return p.candidate(hosts) }, tell: func(p *at) Clause {
			return Clause{Asked: asked, Has: p.Site.String(), Sentence: "CandidateHosts asks for " + asked + ", which is neither the site " + p.Site.String() + " nor a node of " + p.environment()}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			name := p.Site.String()
			return Edit{From: asked, To: quoted(name), amount: 1, apply: func(d *draft) { d.resources.CandidateHosts = []string{name} }}, true
		}})
	}
	if s := c.placement.Share; s != nil {
		want := *s
		add(clause{element: "Share", met: func(p *at) bool { return p.Share.Has(want) }, tell: func(p *at) Clause {
			has := p.Share.ID
			if s := p.Share.Span; s != nil {
				has = listed(s.IDs, "and") + " as one"
			}
			return Clause{Asked: want, Has: has, Sentence: "Share asks for " + quoted(want) + ", and this is " + has}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			id := p.Share.ID
			return Edit{From: quoted(want), To: quoted(id), amount: 1, apply: func(d *draft) { d.placement.Share = &id }}, true
		}})
	}
	if name := c.def.ByName(); name != "" {
		c.application(name, c.def.Description.Application.Version)
	}
	c.system()
	for _, one := range []struct {
		element string
		r       *jsdl.RangeValue
		unit    unit
		of      func(*Environment) float64
		what    string
		in      func(*jsdl.Resources) **jsdl.RangeValue
	}{
		{"IndividualCPUSpeed", res.IndividualCPUSpeed, unitHertz, func(e *Environment) float64 { return e.CPUSpeed }, "CPUs of ", func(r *jsdl.Resources) **jsdl.RangeValue { return &r.IndividualCPUSpeed }},
		{"IndividualNetworkBandwidth", res.IndividualNetworkBandwidth, unitBits, func(e *Environment) float64 { return e.Bandwidth }, "nodes of ", func(r *jsdl.Resources) **jsdl.RangeValue { return &r.IndividualNetworkBandwidth }},
	} {
		if one.r == nil {
			continue
		}
		add(clause{element: one.element, met: func(p *at) bool {
			x := one.of(p.Environment)
			return x <= 0 || one.r.Contains(x)
		}, tell: func(p *at) Clause {
			asked, has := describe(one.r, one.unit), one.unit.say(one.of(p.Environment))
			return Clause{Asked: asked, Has: has, Sentence: one.element + " asks for " + asked + ", and the " + one.what + p.environment() + " have " + has}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			x := one.of(p.Environment)
			to := reshaped(one.r, x)
			return Edit{From: describe(one.r, one.unit), To: describe(to, one.unit), amount: away(one.r, x), apply: func(d *draft) { *one.in(&d.resources) = to }}, true
		}})
	}
	for i := range res.FileSystems {
		f := &res.FileSystems[i]
		add(clause{element: "FileSystem " + f.Name, met: func(p *at) bool {
			_, ok := p.fileSystem(f)
			return ok
		}, tell: func(p *at) Clause {
			asked := describeFileSystem(f)
			has, _ := p.fileSystem(f)
			return Clause{Asked: asked, Has: has, Sentence: "FileSystem " + f.Name + " asks for one" + asked + ", and that of " + p.environment() + " is " + has}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			to, ok := p.mendFileSystem(f)
			return Edit{From: "one" + describeFileSystem(f), To: "one" + describeFileSystem(&to), amount: 1, apply: func(d *draft) { d.resources.FileSystems[i] = to }}, ok
		}})
	}
	if len(c.gpus) > 0 {
		gpus := c.gpus
		add(clause{element: "GPU", met: func(p *at) bool { return hasGPUs(p.Environment, gpus) }, tell: func(p *at) Clause {
			asked, has := describeGPUs(gpus), describeGPUs(p.Environment.GPUs)
			return Clause{Asked: asked, Has: has, Sentence: "GPU asks for " + asked + " on each host, and a node of " + p.environment() + " has " + has}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			fewer := fewerGPUs(c.placement.GPUs, p.Environment)
			left := 0
			for _, g := range fewer {
				left += g.Count
			}
			asked := int(p.request.ask.gpus)
			return Edit{From: describeGPUs(gpus), To: describeGPUs(byType(fewer)), amount: float64(asked-left) / float64(asked), apply: func(d *draft) { d.placement.GPUs = fewer }}, true
		}})
	}
	for _, l := range c.placement.Licences {
		add(clause{element: "Licence " + l.Name, met: func(p *at) bool {
			n, ok := p.consumable(l.Name)
			return ok && n >= int64(l.Count) || !ok && !p.countsConsumables()
		}, tell: func(p *at) Clause {
			n, _ := p.consumable(l.Name)
			return Clause{Asked: strconv.Itoa(l.Count), Has: strconv.FormatInt(n, 10), Sentence: fmt.Sprintf("Licence %s asks for %d, and the site %s has %d", l.Name, l.Count, p.Site, n)}
		}, mend: func(p *at, now bool) (Edit, bool) { return p.mendLicence(l, now) }})
	}
	if s := c.placement.Constraint; s != nil {
		if names, all, ok := features(*s); ok {
			want := *s
			add(clause{element: "Constraint", met: func(p *at) bool { return p.meetsConstraint(names, all) }, tell: func(p *at) Clause {
				has := listed(p.Environment.Features, "and")
				return Clause{Asked: clipped(want), Has: has, Sentence: "Constraint asks for " + quoted(want) + ", and the nodes of " + p.environment() + " have " + has}
			}, mend: func(*at, bool) (Edit, bool) {
				return Edit{From: quoted(want), To: none, amount: 1, apply: func(d *draft) { d.placement.Constraint = nil }}, true
			}})
		}
	}
	if wall := r.wallLimit; wall > 0 {
		add(clause{element: "WallTimeLimit", met: func(p *at) bool {
			most := int64(p.Share.MaxWallTime / time.Second)
			return most <= 0 || wall <= most
		}, tell: func(p *at) Clause {
			asked, has := seconds(float64(wall)), seconds(p.Share.MaxWallTime.Seconds())
			return Clause{Asked: asked, Has: has, Sentence: "WallTimeLimit asks for " + asked + ", and the share " + p.Share.ID + " lets a job run for at most " + has}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			most := int64(p.Share.MaxWallTime / time.Second)
			return Edit{From: seconds(float64(wall)), To: seconds(float64(most)), amount: float64(wall-most) / float64(wall), apply: func(d *draft) {
				d.application().POSIX.Limits.WallTime = big.NewInt(most)
			}}, true
		}})
	}
	if !r.Deadline.IsZero() {
		add(clause{element: "Deadline", met: func(p *at) bool {
			now := p.derived.Now
			return now.IsZero() || now.Add(durationOf(p.request.wallLimit)).Before(p.request.Deadline)
		}, tell: tellDeadline, mend: func(p *at, _ bool) (Edit, bool) {
			t := p.derived.Now.Add(durationOf(p.request.wallLimit)).Truncate(time.Second).Add(time.Second)
			if n := p.request.NotBefore.Add(time.Second); n.After(t) {
				t = n
			}
			return Edit{From: moment(p.request.Deadline), To: moment(t), amount: 1, apply: func(d *draft) { d.placement.Deadline = &t }}, true
		}})
	}
	add(clause{element: elementAllocation, met: func(p *at) bool {
		space := p.room()
		_, ok := p.request.ask.solve(&space)
		return ok
	}, tellAll: func(p *at) []Clause { return c.tellAllocation(p, p.room(), false) }})
}

// application wants what is installed (standards' C2).
func (c *compiler) application(name string, version *string) {
	asked := name
	if version != nil {
		asked += " " + *version
	}
	c.request.clauses = append(c.request.clauses, clause{element: "ApplicationName", met: func(p *at) bool {
		return slices.ContainsFunc(p.static.Applications, func(a Application) bool {
			return a.Name == name && a.on(p.Environment.ID) && (version == nil || a.Version == "" || a.Version == *version)
		})
	}, tell: func(p *at) Clause {
		versions := p.applications(func(a *Application) string {
			if a.Name == name {
				return a.Version
			}
			return ""
		})
		if len(versions) > 0 {
			has := listed(versions, "and")
			return Clause{Element: "ApplicationVersion", Asked: given(version), Has: has, Sentence: "ApplicationVersion asks for " + clipped(asked) + ", and " + p.environment() + " has " + has}
		}
		return Clause{Asked: asked, Has: "none", Sentence: "ApplicationName asks for " + clipped(asked) + ", which " + p.environment() + " does not have"}
	}, mend: func(p *at, _ bool) (Edit, bool) {
		for i := range p.static.Applications {
			a := &p.static.Applications[i]
			if v := a.Version; a.Name == name && v != "" && a.on(p.Environment.ID) {
				return Edit{Element: "ApplicationVersion", From: given(version), To: v, amount: 1, apply: func(d *draft) { d.application().Version = &v }}, true
			}
		}
		return Edit{}, false
	}})
}

// system wants an operating system and an architecture.
func (c *compiler) system() {
	add := func(element, want string, meets func(want, have string) bool, of func(*Environment) string, verb string, set func(*draft, string)) {
		c.request.clauses = append(c.request.clauses, clause{element: element, met: func(p *at) bool { return meets(want, of(p.Environment)) }, tell: func(p *at) Clause {
			has := of(p.Environment)
			return Clause{Asked: want, Has: has, Sentence: element + " asks for " + quoted(want) + ", and the nodes of " + p.environment() + " " + verb + " " + quoted(has)}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			has := of(p.Environment)
			return Edit{From: quoted(want), To: quoted(has), amount: 1, apply: func(d *draft) { set(d, has) }}, true
		}})
	}
	exact := func(want, have string) bool { return have == "" || want == have }
	if o := c.resources.OperatingSystem; o != nil {
		if o.HasType {
			add("OperatingSystemName", o.Name, runsSystem, func(e *Environment) string { return e.OperatingSystem }, "run", func(d *draft, s string) {
				o := *d.resources.OperatingSystem
				o.Name = s
				d.resources.OperatingSystem = &o
			})
		}
		if o.Version != nil {
			add("OperatingSystemVersion", *o.Version, exact, func(e *Environment) string { return e.OSVersion }, "run", func(d *draft, s string) {
				o := *d.resources.OperatingSystem
				o.Version = &s
				d.resources.OperatingSystem = &o
			})
		}
	}
	if a := c.resources.CPUArchitecture; a != nil {
		add("CPUArchitectureName", a.Name, isArchitecture, func(e *Environment) string { return e.CPUArchitecture }, "are", func(d *draft, s string) {
			d.resources.CPUArchitecture = &jsdl.CPUArchitecture{Name: s}
		})
	}
}

// dynamicClauses are the wishes that time may meet.
func (c *compiler) dynamicClauses() {
	r := c.request
	add := func(one clause) {
		one.dynamic = true
		r.clauses = append(r.clauses, one)
	}
	if !r.NotBefore.IsZero() {
		add(clause{element: "NotBefore", met: func(p *at) bool { return !p.request.notYet(p.derived.Now) }, tell: func(p *at) Clause {
			t := moment(p.request.NotBefore)
			return Clause{Asked: t, Has: moment(p.derived.Now), Sentence: "NotBefore says that the job must not start before " + t}
		}, mend: func(p *at, _ bool) (Edit, bool) {
			return Edit{From: moment(p.request.NotBefore), To: none, amount: 1, apply: func(d *draft) { d.placement.NotBefore = nil }}, true
		}})
	}
	add(clause{element: "Up", met: func(p *at) bool { return p.Site.Dynamic != nil && p.Site.Dynamic.Up }, tell: func(p *at) Clause {
		s := "nothing is known yet of how the site " + p.Site.String() + " stands"
		if d := p.Site.Dynamic; d != nil {
			if s = "the site " + p.Site.String() + " takes no jobs at present"; d.Problem != "" {
				s += ": " + d.Problem
			}
		}
		return Clause{Asked: "true", Has: "false", Sentence: s}
	}})
	add(clause{element: "Open", met: func(p *at) bool { return p.state.Open }, tell: func(p *at) Clause {
		s := "the share " + p.Share.ID + " is closed at present"
		if !p.stated {
			s = "nothing is known of how the share " + p.Share.ID + " stands"
		}
		return Clause{Asked: "true", Has: "false", Sentence: s}
	}})
	add(clause{element: "FreeSlots", met: func(p *at) bool { return p.Share.Slots <= 0 || p.state.FreeSlots >= p.request.Need.Slots }, tell: func(p *at) Clause {
		return Clause{Asked: strconv.Itoa(p.request.Need.Slots), Has: strconv.Itoa(p.state.FreeSlots), Sentence: fmt.Sprintf("all %s of the share %s are taken", many(int64(p.Share.Slots), "slot"), p.Share.ID)}
	}})
	add(clause{element: elementAllocation, met: func(p *at) bool {
		space := p.free()
		_, ok := p.request.ask.solve(&space)
		return ok
	}, tellAll: func(p *at) []Clause { return c.tellAllocation(p, p.free(), true) }})
	for _, l := range c.placement.Licences {
		add(clause{element: "Licence " + l.Name, met: func(p *at) bool {
			n, ok := p.freeConsumable(l.Name)
			return !ok || n >= int64(l.Count)
		}, tell: func(p *at) Clause {
			n, _ := p.freeConsumable(l.Name)
			return Clause{Asked: strconv.Itoa(l.Count), Has: strconv.FormatInt(n, 10), Sentence: fmt.Sprintf("Licence %s asks for %d, and %d are free at the site %s", l.Name, l.Count, n, p.Site)}
		}, mend: func(p *at, now bool) (Edit, bool) { return p.mendLicence(l, now) }})
	}
	for _, one := range c.dynamic {
		add(one)
	}
}

// mendLicence asks for as many as there are.
func (p *at) mendLicence(l jsdl.Licence, now bool) (Edit, bool) {
	n, known := p.consumable(l.Name)
	if free, ok := p.freeConsumable(l.Name); now && ok && (!known || free < n) {
		n = free
	}
	e := Edit{From: strconv.Itoa(l.Count), To: strconv.FormatInt(n, 10), amount: float64(int64(l.Count)-n) / float64(l.Count)}
	if n <= 0 {
		e.To, e.amount = none, 1
	}
	e.apply = func(d *draft) {
		i := slices.IndexFunc(d.placement.Licences, func(have jsdl.Licence) bool { return have.Name == l.Name })
		if n <= 0 {
			d.placement.Licences = slices.Delete(d.placement.Licences, i, i+1)
			return
		}
		d.placement.Licences[i].Count = int(n)
	}
	return e, true
}

// fewerGPUs asks for what a node has.
func fewerGPUs(asked []jsdl.GPU, e *Environment) []jsdl.GPU {
	var out []jsdl.GPU
	left := gpusOf(e, "")
	for _, typed := range []bool{true, false} {
		for _, g := range asked {
			if (g.Type != "") != typed {
				continue
			}
			if typed {
				g.Count = min(g.Count, gpusOf(e, g.Type))
			}
			if g.Count = min(g.Count, left); g.Count > 0 {
				out = append(out, g)
				left -= g.Count
			}
		}
	}
	return out
}

// mendFileSystem changes a file system to what is there.
func (p *at) mendFileSystem(f *jsdl.FileSystem) (jsdl.FileSystem, bool) {
	to := *f
	size := p.Environment.Disk
	for i := range p.Environment.FileSystems {
		have := &p.Environment.FileSystems[i]
		if have.Name != f.Name {
			continue
		}
		if size = have.Size; to.Type != "" && have.Type != "" {
			to.Type = have.Type
		}
		if point := have.MountPoint; to.MountPoint != nil && point != "" {
			to.MountPoint = &point
		}
	}
	if _, ok := p.fileSystem(&to); !ok && to.DiskSpace != nil {
		if to.Type == "swap" {
			size = p.Environment.VirtualMemory - p.Environment.Memory
		}
		to.DiskSpace = reshaped(to.DiskSpace, float64(max(size, 0)))
	}
	_, ok := p.fileSystem(&to)
	return to, ok
}

func (p *at) environment() string { return "the environment " + p.Environment.ID }

func tellVO(p *at) Clause {
	subject, policy, what := p.request.Subject, p.static.Policy, "the site "+p.Site.String()
	if policy.Allows(subject) {
		policy, what = p.Share.Policy, "the share "+p.Share.ID
	}
	asked, mine := subject.VO, "the job is of the VO "+subject.VO
	if subject.VO == "" {
		asked, mine = "none", "the job is of no VO"
	}
	if (Policy{Allow: policy.Allow}).Allows(subject) {
		denied := who(policy.Deny)
		if denied == "" {
			denied = "everybody"
		}
		return Clause{Asked: asked, Has: "not " + denied, Sentence: what + " is closed to " + denied + ", and " + mine}
	}
	return Clause{Asked: asked, Has: who(policy.Allow), Sentence: what + " is for " + who(policy.Allow) + ", and " + mine}
}

func tellDeadline(p *at) Clause {
	t, now := moment(p.request.Deadline), moment(p.derived.Now)
	if !p.derived.Now.Before(p.request.Deadline) {
		return Clause{Asked: t, Has: now, Sentence: "Deadline is " + t + ", which has passed"}
	}
	return Clause{Asked: t, Has: now, Sentence: "Deadline is " + t + ", and a job that may run for " + seconds(float64(p.request.wallLimit)) + " can't be sure to have ended by then"}
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func quotedAll(words []string) []string {
	var out []string
	for _, w := range words[:min(len(words), 10)] {
		out = append(out, quoted(w))
	}
	return out
}

func describeFileSystem(f *jsdl.FileSystem) string {
	var out []string
	if f.Type != "" {
		out = append(out, "of the type "+f.Type)
	}
	if f.MountPoint != nil {
		out = append(out, "mounted at "+quoted(*f.MountPoint))
	}
	if f.DiskSpace != nil {
		out = append(out, "with "+describe(f.DiskSpace, unitBytes))
	}
	if len(out) == 0 {
		return ""
	}
	return " " + listed(out, "and")
}

func describeGPUs(gpus map[string]int) string {
	var out []string
	for kind, n := range gpus {
		s := strconv.Itoa(n)
		if kind != "" {
			s += " of the type " + clipped(kind)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	if len(out) == 0 {
		return "none"
	}
	return listed(out, "and")
}

// tellAllocation says which elements no allocation in the space meets: those that can't
// be met even alone, or else the fewest that can't be met together.
func (c *compiler) tellAllocation(p *at, space room, dynamic bool) []Clause {
	a := &p.request.ask
	nobody := a.without(a.given)
	if _, ok := nobody.solve(&space); !ok {
		has, s := "0", "no node of "+p.environment()+" takes jobs at present"
		switch {
		case !dynamic:
			s = p.environment() + " has no node for the job"
		case p.nodes.Available > 0:
			s = "all CPUs of " + p.environment() + " are taken"
		}
		return []Clause{{Element: "FreeCPUs", Asked: strconv.Itoa(p.request.Need.CPUs), Has: has, Sentence: s}}
	}
	var out []Clause
	for q := range numParts {
		if !a.given.has(q) {
			continue
		}
		alone := a.without(a.given &^ (1 << q))
		if _, ok := alone.solve(&space); ok {
			continue
		}
		asked := c.asks(q)
		has, phrase := p.limit(q, &space, dynamic)
		out = append(out, Clause{Element: q.String(), Asked: asked, Has: has, Sentence: q.String() + " asks for " + asked + ", and " + phrase})
	}
	if len(out) > 0 {
		return out
	}
	together := a.contradiction(&space)
	first := together.first()
	bottleneck := partTotal
	for _, q := range []part{partExclusive, partGPU} {
		if together.has(q) {
			bottleneck = q
		}
	}
	has, phrase := p.limit(bottleneck, &space, dynamic)
	return []Clause{{Element: first.String(), Asked: c.asks(first), Has: has, Sentence: c.names(together) + " can't be had together: " + phrase + p.shape(&space)}}
}

// names lists parts with what they ask for.
func (c *compiler) names(s parts) string {
	var names []string
	for q := range numParts {
		if s.has(q) {
			names = append(names, q.String()+" ("+c.asks(q)+")")
		}
	}
	return listed(names, "and")
}

// shape tells what an allocation is made of.
func (p *at) shape(space *room) string {
	var out []string
	if space.hosts < maxCount {
		out = append(out, many(space.hosts, "node"))
	}
	if n := p.Environment.CPUs; n > 0 {
		out = append(out, many(int64(n), "CPU")+" on each")
	}
	if m := space.amount[0]; m < unlimited {
		out = append(out, unitBytes.say(float64(m))+" of memory on each")
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// asks says what the document asks of a part.
func (c *compiler) asks(q part) string {
	switch q {
	case partProcesses:
		n := "room for " + many(int64(c.asked.Processes), "process")
		if n = strings.Replace(n, "processs", "processes", 1); c.asked.Threads > 1 {
			n += " of " + many(int64(c.asked.Threads), "thread")
		}
		if c.asked.ProcessesPerHost > 0 {
			n += ", at most " + strconv.Itoa(c.asked.ProcessesPerHost) + " on a host"
		}
		return n
	case partExclusive:
		return "hosts of the job's own"
	case partGPU:
		return describeGPUs(c.gpus)
	case partTotal, partEach, partHosts, partMemoryEach, partMemoryTotal, partVirtualEach, partVirtualTotal, partDiskEach, partDiskTotal, partTimeEach, partTimeTotal, numParts:
	}
	return describe(rangeOf(c.resources, q), unitOf(q))
}

// limit says what the space has of what a part asks for, and who sets it.
func (p *at) limit(q part, space *room, dynamic bool) (has, phrase string) {
	share, e := "the share "+p.Share.ID, p.environment()
	number := func(n int64, u unit) string {
		if n >= maxCount && u == unitCount || n >= unlimited {
			return "no limit"
		}
		return u.say(float64(n))
	}
	kind := -1
	switch q {
	case partMemoryEach, partMemoryTotal:
		kind = 0
	case partVirtualEach, partVirtualTotal:
		kind = 1
	case partDiskEach, partDiskTotal:
		kind = 2
	case partTimeEach, partTimeTotal:
		has = number(space.wall, unitSeconds)
		return has, share + " lets a job run for at most " + has
	case partExclusive:
		has = number(space.whole, unitCount)
		return has, e + " has " + many(space.whole, "idle node")
	case partGPU:
		has = number(space.gpus, unitCount)
		return has, has + " are free on " + e
	case partHosts:
		has = number(space.hosts, unitCount)
		switch {
		case dynamic && p.nodes.Available < p.nodes.Nodes && int64(p.nodes.Available) == space.hosts:
			return has, "of the " + many(int64(p.nodes.Nodes), "node") + " of " + e + " " + has + " can take jobs at present"
		case dynamic:
			return has, number(space.total, unitCount) + " CPUs of " + e + " are free"
		case p.Share.MaxNodes > 0 && space.hosts == int64(p.Share.MaxNodes):
			return has, share + " allows " + has
		}
		return has, e + " has " + many(space.hosts, "such node")
	case partEach:
		if n := space.each; !dynamic || space.total >= n {
			has = number(n, unitCount)
			return has, "a node of " + e + " has " + has
		}
		fallthrough
	case partTotal, partProcesses:
		n := min(space.total, times(space.hosts, space.each))
		if dynamic {
			n = int64(p.nodes.FreeCPUs)
		}
		has = number(n, unitCount)
		switch {
		case dynamic:
			return has, has + " CPUs of " + e + " are free"
		case p.Share.MaxCPUs > 0 && n == int64(p.Share.MaxCPUs):
			return has, share + " allows " + has
		case p.Share.MaxNodes > 0 && space.hosts == int64(p.Share.MaxNodes):
			return has, share + " allows " + many(space.hosts, "node") + ", which have " + has + " CPUs"
		}
		return has, e + " has " + has + " CPUs"
	case numParts:
	}
	what := []string{"memory", "virtual memory", "disk for jobs"}[kind]
	each := q == partMemoryEach || q == partVirtualEach || q == partDiskEach
	if dynamic && space.sum[kind] < unlimited {
		has = number(space.sum[kind], unitBytes)
		return has, has + " of " + what + " are free on " + e
	}
	if each {
		has = number(space.amount[kind], unitBytes)
		if kind == 0 && p.Share.MaxMemory > 0 && space.amount[0] == p.Share.MaxMemory {
			return has, share + " allows " + has + " on a node"
		}
		return has, "a node of " + e + " has " + has + " of " + what
	}
	has = number(times(space.amount[kind], min(space.hosts, space.total)), unitBytes)
	return has, many(min(space.hosts, space.total), "node") + " of " + e + " have " + has + " of " + what
}
