package resourcemodel

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NSGLUE is the namespace of GLUE 2.0 in XML (GFD.209).
const NSGLUE = "http://schemas.ogf.org/glue/2009/03/spec_2.0_r1"

// WriteGLUE writes the sites of a domain as a GLUE 2.0 document (GFD.147, GFD.209): the
// domain as AdminDomain, each VO that a policy allows as UserDomain, each site as
// ComputingService with its ComputingManager, shares as ComputingShare with a
// MappingPolicy, environments as ExecutionEnvironment, applications as
// ApplicationEnvironment. Name is what the domain is called in the document; our own
// domain, "", needs one.
//
// Sizes are in MiB, as GLUE counts them, and rounded down; times in seconds. What GLUE has
// no word for is in Extensions. GLUE's basic policies know no denial and no "both": a
// MappingPolicy has the rules of the share that the site's policy may let through as
// well, a share that nobody may use is closed, and denials are extensions. An environment whose memory is unknown has
// MainMemorySize 0.
//
// The document is written element by element: only one is in memory. The error is
// that of w, or fail.Invalid for a missing name.
func WriteGLUE(w io.Writer, s *Snapshot, domain, name string) error {
	const op = "resourcemodel.WriteGLUE"
	if name == "" {
		name = domain
	}
	if err := (Key{Domain: name, Site: "x"}).Check(); name == "" || err != nil {
		return fail.Errorf(op, fail.Invalid, name, "the domain needs a name of letters, digits and - . _ to be written as GLUE; it has %s", shown(name))
	}
	g := &glue{w: bufio.NewWriterSize(w, 1<<16), domain: name, sites: s.SitesOf(domain)}
	g.w.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<glue:GLUE2 xmlns:glue="` + NSGLUE + `">` + "\n") //nolint:errcheck // Flush tells
	// The schema wants all elements of a kind together.
	g.domains()
	for _, kind := range []func(*Site){g.service, g.shares, g.manager, g.environments, g.policies, g.benchmarks, g.applications} {
		for site := range g.sites {
			kind(site)
		}
	}
	g.w.WriteString("</glue:GLUE2>\n") //nolint:errcheck // Flush tells
	if err := g.w.Flush(); err != nil {
		return fail.E(op, fail.Unavailable, name, err)
	}
	return nil
}

// glue writes one document. What the writer said is asked once, at the end.
type glue struct {
	w      *bufio.Writer
	domain string
	sites  iter.Seq[*Site]
	buffer []byte
}

// entity is an element under construction.
type entity struct{ *etree.Element }

func (g *glue) write(e entity) {
	g.buffer = append(xmldoc.Append(g.buffer[:0], e.Element), '\n')
	g.w.Write(g.buffer) //nolint:errcheck // Flush tells
}

// id makes an identifier that is a URI and, as some references need it, a LocalID_t: a
// letter, then letters, digits and _ - . : only. Any other byte, and "_", is "_" and two
// hexadecimal digits.
func (g *glue) id(kind string, parts ...string) string {
	var b strings.Builder
	b.WriteString("urn:portolan:")
	b.WriteString(kind)
	for _, p := range append([]string{g.domain}, parts...) {
		b.WriteByte(':')
		for i := range len(p) {
			switch c := p[i]; {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.':
				b.WriteByte(c)
			default:
				fmt.Fprintf(&b, "_%02X", c)
			}
		}
	}
	return b.String()
}

// begin makes an entity with what all have: ID, name, other information, extensions.
func (g *glue) begin(tag, base, id, name string, stamp *Stamp, info []string, ext *extensions) entity {
	e := entity{etree.NewElement("glue:" + tag)}
	if stamp != nil && !stamp.Changed.IsZero() {
		e.CreateAttr("CreationTime", glueTime(stamp.Changed))
	}
	if base != "" {
		e.CreateAttr("BaseType", base)
	}
	e.text("ID", id)
	e.text("Name", name)
	for _, s := range info {
		e.text("OtherInfo", s)
	}
	if ext != nil && len(ext.list) > 0 {
		x := e.child("Extensions")
		for i, kv := range ext.list {
			one := x.child("Extension")
			one.text("LocalID", "x"+strconv.Itoa(i+1))
			one.always("Key", kv[0])
			one.always("Value", kv[1])
		}
	}
	return e
}

// extensions are what GLUE has no word for.
type extensions struct{ list [][2]string }

func (x *extensions) add(key, value string) {
	if value != "" {
		x.list = append(x.list, [2]string{key, value})
	}
}

func (x *extensions) number(key string, n int64) {
	if n > 0 {
		x.add(key, strconv.FormatInt(n, 10))
	}
}

func (x *extensions) consumables(list []Consumable) {
	for _, c := range list {
		x.add("Consumable."+c.Name, strconv.FormatInt(c.Total, 10))
	}
}

func (e entity) child(tag string) entity { return entity{e.CreateElement("glue:" + tag)} }

// text writes an element unless its text is empty.
func (e entity) text(tag, s string) {
	if s != "" {
		e.always(tag, s)
	}
}

func (e entity) always(tag, s string) { e.CreateElement("glue:" + tag).SetText(s) }

// count writes an unsignedInt; small and beyond its range it is the largest one.
func (e entity) count(tag string, n int) {
	e.always(tag, strconv.FormatUint(uint64(min(max(n, 0), math.MaxUint32)), 10))
}

// limit writes a count of which zero is none.
func (e entity) limit(tag string, n int) {
	if n > 0 {
		e.count(tag, n)
	}
}

// mib writes bytes as MiB, unless they are not known.
func (e entity) mib(tag string, n int64) {
	if n > 0 {
		e.always(tag, strconv.FormatInt(n>>20, 10))
	}
}

func (e entity) seconds(tag string, d time.Duration) {
	if d > 0 {
		e.always(tag, strconv.FormatInt(int64(d/time.Second), 10))
	}
}

func (g *glue) domains() {
	policies := map[string][]string{} // of a user domain
	e := g.begin("AdminDomain", "Domain", g.id("domain"), g.domain, nil, nil, nil)
	a := e.child("Associations")
	for site := range g.sites {
		a.text("ServiceID", g.id("site", site.Site))
		for i := range site.Static.Shares {
			h := &site.Static.Shares[i]
			rules, _ := h.mapping(site.Static.Policy)
			for _, d := range userDomains(rules) {
				policies[d] = append(policies[d], g.id("policy", site.Site, h.ID))
			}
		}
	}
	g.write(e)
	for _, d := range sorted(policies) {
		e := g.begin("UserDomain", "Domain", g.id("vo", d), d, nil, nil, nil)
		a := e.child("Associations")
		for _, p := range policies[d] {
			a.text("PolicyID", p)
		}
		g.write(e)
	}
}

// userDomains names the UserDomains of rules, each once: the VOs, and "*" where
// users are named.
func userDomains(rules []string) []string {
	names := map[string]bool{}
	for _, r := range rules {
		vo, ok := strings.CutPrefix(r, ruleVO)
		if !ok {
			vo = ruleAll
		}
		names[vo] = true
	}
	return sorted(names)
}

// mapping gives the allowing rules of the share, or that it is for everybody. Where the
// site has rules too, those of the share stay that may let somebody through whom the
// site lets through: there may be none.
func (s *Share) mapping(site Policy) (rules []string, everybody bool) {
	open := func(p Policy) bool { return len(p.Allow) == 0 || slices.Contains(p.Allow, ruleAll) }
	switch {
	case open(site) && open(s.Policy):
		return nil, true
	case open(site):
		return s.Policy.Allow, false
	case open(s.Policy):
		return site.Allow, false
	}
	for _, r := range s.Policy.Allow {
		kind, _, _ := strings.Cut(r, ":")
		if slices.ContainsFunc(site.Allow, func(o string) bool {
			other, _, _ := strings.Cut(o, ":")
			return o == r || other != kind // a user may be of the VO
		}) {
			rules = append(rules, r)
		}
	}
	return rules, false
}

func (g *glue) service(s *Site) {
	var ext extensions
	ext.add("Source", s.Static.Source)
	ext.add("Detail", s.Static.Detail.String())
	ext.consumables(s.Static.Consumables)
	for _, d := range s.Static.Data {
		ext.add("Data."+d.Prefix, number64(d.Distance))
	}
	if d := s.Dynamic; d != nil {
		ext.add("DynamicSource", d.Source)
		ext.add("DynamicChanged", glueTime(d.Changed))
		ext.add("Up", strconv.FormatBool(d.Up))
		ext.add("Problem", d.Problem)
		for _, k := range sorted(d.Consumables) {
			ext.add("FreeConsumable."+k, strconv.FormatInt(d.Consumables[k], 10))
		}
	}
	for _, r := range s.Static.Policy.Deny {
		ext.add("Deny", r)
	}
	e := g.begin("ComputingService", "Service", g.id("site", s.Site), s.Site, &s.Static.Stamp, s.Static.Labels, &ext)
	e.text("Capability", "executionmanagement.jobexecution")
	e.text("Type", "org.ogf.bes")
	e.text("QualityLevel", "production")
	if s.Dynamic != nil {
		running, waiting := 0, 0
		for _, q := range s.Dynamic.Shares {
			running, waiting = sum(running, q.Running), sum(waiting, q.Waiting)
		}
		e.count("TotalJobs", sum(running, waiting))
		e.count("RunningJobs", running)
		e.count("WaitingJobs", waiting)
	}
	a := e.child("Associations")
	for i := range s.Static.Shares {
		a.text("ShareID", g.id("share", s.Site, s.Static.Shares[i].ID))
	}
	a.text("ManagerID", g.id("manager", s.Site))
	g.write(e)
}

func (g *glue) shares(s *Site) {
	for i := range s.Static.Shares {
		h := &s.Static.Shares[i]
		state, known := s.Dynamic.Share(h.ID)
		var ext extensions
		if h.Default {
			ext.add("Default", "true")
		}
		ext.number("MaxNodes", int64(h.MaxNodes))
		if h.Price > 0 {
			ext.add("Price", number64(h.Price))
		}
		ext.consumables(h.Consumables)
		for _, k := range sorted(state.Consumables) {
			ext.add("FreeConsumable."+k, strconv.FormatInt(state.Consumables[k], 10))
		}
		for _, r := range h.Policy.Deny {
			ext.add("Deny", r)
		}
		if w := h.Span; w != nil {
			ext.add("MergedShares", strings.Join(w.IDs, " "))
			ext.number("WidestMaxWallTime", int64(w.MaxWallTime/time.Second))
			ext.number("WidestMaxSlotsPerJob", int64(w.MaxCPUs))
			ext.number("WidestMaxMainMemory", w.MaxMemory>>20)
		}
		e := g.begin("ComputingShare", "Share", g.id("share", s.Site, h.ID), h.ID, &s.Static.Stamp, nil, &ext)
		e.text("MappingQueue", h.ID)
		e.seconds("MaxWallTime", h.MaxWallTime)
		e.limit("MaxRunningJobs", h.Slots)
		e.limit("MaxSlotsPerJob", h.MaxCPUs)
		e.mib("MaxMainMemory", h.MaxMemory)
		// One whose state is not known takes no job.
		serving := "closed"
		rules, everybody := h.mapping(s.Static.Policy)
		if known && state.Open && s.Dynamic.Up && (everybody || len(rules) > 0) {
			serving = "production"
		}
		e.text("ServingState", serving)
		if known {
			e.count("TotalJobs", sum(state.Running, state.Waiting))
			e.count("RunningJobs", state.Running)
			e.count("WaitingJobs", state.Waiting)
			e.seconds("EstimatedAverageWaitingTime", state.Forecast)
			e.count("FreeSlots", state.FreeSlots)
		}
		a := e.child("Associations")
		for _, id := range h.Environments {
			a.text("ResourceID", g.id("environment", s.Site, id))
		}
		a.text("ServiceID", g.id("site", s.Site))
		if len(rules) > 0 {
			a.text("PolicyID", g.id("policy", s.Site, h.ID))
		}
		g.write(e)
	}
}

// products are GLUE's words for managers (ComputingManagerType_t) where they differ
// from ours; the list is open.
var products = map[string]string{"shell": "fork"}

func (g *glue) manager(s *Site) {
	e := g.begin("ComputingManager", "Manager", g.id("manager", s.Site), s.Static.Type, &s.Static.Stamp, nil, nil)
	product := s.Static.Type
	if p := products[product]; p != "" {
		product = p
	}
	e.always("ProductName", product)
	cpus, slots := 0, 0
	for i := range s.Static.Environments {
		env := &s.Static.Environments[i]
		state, _ := s.Dynamic.Environment(env.ID)
		cpus = sum(cpus, product64(env.CPUs, state.Nodes))
	}
	for i := range s.Static.Shares {
		slots = sum(slots, s.Static.Shares[i].Slots)
	}
	e.limit("TotalLogicalCPUs", cpus)
	e.limit("TotalSlots", slots)
	e.text("Homogeneous", strconv.FormatBool(len(s.Static.Environments) == 1 && s.Static.Environments[0].Span == nil))
	a := e.child("Associations")
	a.text("ServiceID", g.id("site", s.Site))
	for i := range s.Static.Environments {
		a.text("ResourceID", g.id("environment", s.Site, s.Static.Environments[i].ID))
	}
	for i := range s.Static.Applications {
		a.text("ApplicationEnvironmentID", g.application(s, i))
	}
	g.write(e)
}

// product64 multiplies counts and stays within the bound.
func product64(a, b int) int {
	if a > 0 && b > MaxCount/a {
		return MaxCount
	}
	return a * b
}

// platforms and families are GLUE's words for JSDL's (Platform_t, OSFamily_t); the
// lists are open, and what is in none of them is in small letters, as GLUE's are.
var (
	platforms = map[string]string{"x86_64": "amd64", "x86_32": "i386", "x86": "i386", "ia64": "itanium"}
	families  = map[string]string{
		"MACOS": "macosx", "SunOS": "solaris", "WINNT": "windows", "WIN98": "windows", "WIN95": "windows", "Windows_XP": "windows", "Windows_2000": "windows",
	}
)

func glueWord(words map[string]string, w string) string {
	switch {
	case words[w] != "":
		return words[w]
	case w == "":
		return "unknown"
	}
	return strings.ToLower(w)
}

func (g *glue) environments(s *Site) {
	for i := range s.Static.Environments {
		env := &s.Static.Environments[i]
		state, known := s.Dynamic.Environment(env.ID)
		var ext extensions
		ext.number("Disk", env.Disk)
		if env.Bandwidth > 0 {
			ext.add("Bandwidth", number64(env.Bandwidth))
		}
		for _, k := range sorted(env.GPUs) {
			ext.add("GPUs."+k, strconv.Itoa(env.GPUs[k]))
		}
		for _, f := range env.Features {
			ext.add("Feature", f)
		}
		for _, f := range env.FileSystems {
			ext.add("FileSystem."+f.Name, f.MountPoint)
		}
		ext.consumables(env.Consumables)
		ext.number("Classes", int64(env.Classes))
		if m := env.Span; m != nil {
			ext.number("MostLogicalCPUs", int64(m.CPUs))
			ext.number("MostMainMemorySize", m.Memory>>20)
			ext.add("OSFamilies", strings.Join(m.OperatingSystems, " "))
			ext.add("Platforms", strings.Join(m.CPUArchitectures, " "))
		}
		if known {
			ext.number("FreeCPUs", int64(state.FreeCPUs))
			ext.number("FreeMemory", state.FreeMemory)
			ext.number("FreeGPUs", int64(state.FreeGPUs))
		}
		e := g.begin("ExecutionEnvironment", "Resource", g.id("environment", s.Site, env.ID), env.ID, &s.Static.Stamp, nil, &ext)
		e.text("Platform", glueWord(platforms, env.CPUArchitecture))
		if known {
			e.count("TotalInstances", state.Nodes)
			e.count("UsedInstances", state.Available-state.FreeNodes)
			e.count("UnavailableInstances", state.Nodes-state.Available)
		}
		e.limit("LogicalCPUs", env.CPUs)
		e.limit("CPUClockSpeed", int(env.CPUSpeed/1e6))
		e.always("MainMemorySize", strconv.FormatInt(env.Memory>>20, 10))
		e.mib("VirtualMemorySize", env.VirtualMemory)
		e.text("OSFamily", glueWord(families, env.OperatingSystem))
		e.text("OSVersion", env.OSVersion)
		e.text("ConnectivityIn", "undefined")
		e.text("ConnectivityOut", "undefined")
		a := e.child("Associations")
		a.text("ManagerID", g.id("manager", s.Site))
		for j := range s.Static.Shares {
			if h := &s.Static.Shares[j]; slices.Contains(h.Environments, env.ID) {
				a.text("ShareID", g.id("share", s.Site, h.ID))
			}
		}
		for j := range s.Static.Applications {
			if on := s.Static.Applications[j].Environments; len(on) == 0 || slices.Contains(on, env.ID) {
				a.text("ApplicationEnvironmentID", g.application(s, j))
			}
		}
		for _, k := range sorted(env.Benchmarks) {
			a.text("BenchmarkID", g.id("benchmark", s.Site, env.ID, k))
		}
		g.write(e)
	}
}

func (g *glue) policies(s *Site) {
	for i := range s.Static.Shares {
		h := &s.Static.Shares[i]
		rules, _ := h.mapping(s.Static.Policy)
		if len(rules) == 0 {
			continue
		}
		e := g.begin("MappingPolicy", "Policy", g.id("policy", s.Site, h.ID), "", &s.Static.Stamp, nil, nil)
		e.text("Scheme", "basic")
		for _, r := range rules {
			e.text("Rule", r)
		}
		a := e.child("Associations")
		a.text("ShareID", g.id("share", s.Site, h.ID))
		for _, d := range userDomains(rules) {
			a.text("DomainID", g.id("vo", d))
		}
		g.write(e)
	}
}

func (g *glue) benchmarks(s *Site) {
	for i := range s.Static.Environments {
		env := &s.Static.Environments[i]
		for _, k := range sorted(env.Benchmarks) {
			e := g.begin("Benchmark", "", g.id("benchmark", s.Site, env.ID, k), "", nil, nil, nil)
			e.text("Type", k)
			e.text("Value", strconv.FormatFloat(env.Benchmarks[k], 'g', -1, 64))
			a := e.child("Associations")
			a.text("ResourceID", g.id("environment", s.Site, env.ID))
			g.write(e)
		}
	}
}

// application names the i-th of the site; the same name and version may be there twice.
func (g *glue) application(s *Site, i int) string {
	a := &s.Static.Applications[i]
	return g.id("application", s.Site, strconv.Itoa(i+1), a.Name, a.Version)
}

func (g *glue) applications(s *Site) {
	for i := range s.Static.Applications {
		app := &s.Static.Applications[i]
		e := g.begin("ApplicationEnvironment", "", g.application(s, i), "", &s.Static.Stamp, nil, nil)
		e.text("AppName", app.Name)
		e.text("AppVersion", app.Version)
		a := e.child("Associations")
		for j := range s.Static.Environments {
			if id := s.Static.Environments[j].ID; len(app.Environments) == 0 || slices.Contains(app.Environments, id) {
				a.text("ResourceID", g.id("environment", s.Site, id))
			}
		}
		a.text("ManagerID", g.id("manager", s.Site))
		g.write(e)
	}
}

// glueTime writes GLUE's DateTime_t: UTC, without fractions.
func glueTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
