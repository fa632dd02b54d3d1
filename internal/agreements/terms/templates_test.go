package terms

import (
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/resourcemodel"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type tester interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// taken makes an offer of a template, as it would come over the wire; change changes its XML.
func taken(t tester, tpl *agreement.Template, change func(string) string) *agreement.Offer {
	t.Helper()
	o := &agreement.Offer{Agreement: tpl.Agreement}
	doc := string(xmldoc.Marshal(o.Encode()))
	if change != nil {
		doc = change(doc)
	}
	o, err := agreement.ParseOffer([]byte(doc))
	if err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	return o
}

// complies gives the names of the constraints that an offer breaks.
func complies(t tester, tpl *agreement.Template, o *agreement.Offer) (broken []string) {
	t.Helper()
	c, err := tpl.Compile()
	if err != nil {
		t.Fatalf("%s: %v", tpl.Name, err)
	}
	for _, b := range c.CheckStrictly(o) {
		broken = append(broken, b.Item)
	}
	return broken
}

// TestTemplates: whatever is made of a model is a template that offers can be made of. Taken
// as it is, an offer complies, is understood and can be planned, at the limit too; and what
// can be planned fits the pools.
func TestTemplates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, s := drawModel(t), drawSettings(t)
		pools := Pools(m, s)
		book := calendar.Book{}
		for _, p := range pools {
			if err := p.Check(); err != nil || book[p.ID] != nil {
				t.Fatalf("the pool %+v: %v", p, err)
			}
			book[p.ID] = calendar.NewProfile(p)
		}
		names := map[string]bool{}
		list := Templates(m, bio, noon, s)
		for i := range list {
			tpl := &list[i]
			if names[tpl.Name] {
				t.Fatalf("the name %s stands twice", tpl.Name)
			}
			names[tpl.Name] = true
			again, err := agreement.ParseTemplate(xmldoc.Marshal(tpl.Encode()))
			if err != nil {
				t.Fatalf("%s: %v", tpl.Name, err)
			}
			if p, ok := again.Term(termValues).(*agreement.ServiceProperties); ok {
				for _, v := range p.Variables {
					if v.MetricSpace != nsXS {
						t.Fatalf("%s: the metric of %s is %s of %q", tpl.Name, v.Name, v.Metric, v.MetricSpace)
					}
				}
			}
			planned(t, again, m, book, s, nil)
			if !strings.Contains(tpl.Name, "@") {
				continue
			}
			// At the limit, and not beyond it.
			for _, item := range again.Constraints.Items {
				most := int64(0)
				for _, f := range item.Constraint.ChildElements() {
					if f.Tag == "maxInclusive" {
						most, _ = strconv.ParseInt(f.SelectAttrValue("value", ""), 10, 64)
					}
				}
				if item.Name != "cpus" || most == 0 || strings.HasPrefix(tpl.Name, string(BestEffort)) {
					continue
				}
				planned(t, again, m, book, s, func(doc string) string { return withCPUs(doc, most) })
				if broken := complies(t, again, taken(t, again, func(doc string) string { return withCPUs(doc, most+1) })); len(broken) != 1 || broken[0] != "cpus" {
					t.Fatalf("%s: with %d CPUs %v are broken", tpl.Name, most+1, broken)
				}
			}
		}
	})
}

func withCPUs(doc string, n int64) string {
	doc = strings.Replace(doc, "</jsdl:Application>", fmt.Sprintf("</jsdl:Application><jsdl:Resources><jsdl:TotalCPUCount><jsdl:Exact>%d</jsdl:Exact></jsdl:TotalCPUCount></jsdl:Resources>", n), 1)
	return strings.Replace(doc, "<p:CPUs>1</p:CPUs>", fmt.Sprintf("<p:CPUs>%d</p:CPUs>", n), 1)
}

func planned(t *rapid.T, tpl *agreement.Template, m *resourcemodel.Snapshot, book calendar.Book, s Settings, change func(string) string) {
	o := taken(t, tpl, change)
	if broken := complies(t, tpl, o); len(broken) > 0 {
		t.Fatalf("%s: an offer like it breaks %v: %s", tpl.Name, broken, xmldoc.Marshal(tpl.Encode()))
	}
	if err := Adheres(tpl, &o.Agreement); err != nil {
		t.Fatalf("%s: %v", tpl.Name, err)
	}
	q, err := Read(&o.Agreement, noon, s)
	if err != nil {
		t.Fatalf("%s: %v", tpl.Name, err)
	}
	if kind, _, _ := strings.Cut(tpl.Name, "@"); string(q.Kind) != kind {
		t.Fatalf("%s is %s", tpl.Name, q.Kind)
	}
	plans, err := Plans(q, m, bio, noon, s)
	if err != nil {
		t.Fatalf("%s: %v", tpl.Name, err)
	}
	sound(t, q, plans)
	for _, p := range plans {
		if !book.Fits(p.Holds) {
			t.Fatalf("%s: %+v does not fit, for lack of %s", tpl.Name, p.Holds, book.Lacking(p.Holds))
		}
	}
}

// sound checks plans against what was asked for.
func sound(t tester, q *Request, plans []Plan) {
	t.Helper()
	if len(plans) == 0 || len(plans) > MaxPlans {
		t.Fatalf("%d plans", len(plans))
	}
	for _, p := range plans {
		if len(p.Placed) != len(q.Services) || p.Price < 0 || p.Price > maxTotal {
			t.Fatalf("%+v for %d services", p, len(q.Services))
		}
		if q.Kind == BestEffort && (len(p.Holds) > 0 || !p.StartBy.IsZero()) {
			t.Fatalf("best effort holds %+v", p)
		}
		var first time.Time
		for _, h := range p.Holds {
			if first.IsZero() || h.From.Before(first) {
				first = h.From
			}
		}
		late := time.Duration(0)
		if !p.StartBy.IsZero() {
			late = p.StartBy.Sub(first)
		}
		if late < 0 {
			t.Fatalf("%+v begins too late", p)
		}
		for i := range q.Services {
			v := &q.Services[i]
			if q.Kind != BestEffort && len(p.Placed[i].Holds) == 0 {
				t.Fatalf("nothing is held for %s", v.Name)
			}
			for _, n := range p.Placed[i].Holds {
				h := p.Holds[n]
				if err := h.Check(); err != nil {
					t.Fatalf("%v", err)
				}
				from, until := h.From.Add(late), h.Until.Add(late)
				switch {
				case !v.Window.IsZero() && (!from.Equal(v.Window.Start) || !until.Equal(v.Window.End)),
					!v.StartBy.IsZero() && from.After(v.StartBy), !v.FinishBy.IsZero() && until.After(v.FinishBy), h.From.Before(v.NotBefore), h.Until.Sub(h.From) < v.Duration:
					t.Fatalf("%+v, late by %s, is not what was asked for: %+v", h, late, v)
				}
			}
		}
		e, err := p.Engine()
		if err != nil {
			t.Fatalf("%v", err)
		}
		if back, err := Placements(&e); err != nil || len(back) != len(p.Placed) {
			t.Fatalf("%v %v", back, err)
		}
	}
}

// TestTemplatesGolden: the templates of a few sites, as users get them.
func TestTemplatesGolden(t *testing.T) {
	const name = "testdata/templates.txtar"
	out := &txtar.Archive{Comment: []byte("The templates of one share, and those for any site.\n")}
	list := Templates(model(t, slurm(), condor()), bio, noon, Settings{Penalty: 5000})
	for i := range list {
		tpl := &list[i]
		if strings.Contains(tpl.Name, "condor") {
			continue
		}
		d := etree.NewDocument()
		d.SetRoot(tpl.Encode())
		d.Indent(1)
		s, err := d.WriteToString()
		if err != nil {
			t.Fatal(err)
		}
		out.Files = append(out.Files, txtar.File{Name: tpl.Name + ".xml", Data: []byte(s)},
			txtar.File{Name: tpl.Name + ".txt", Data: []byte(strings.Join(Summary(&tpl.Agreement, time.UTC), "\n") + "\n")})
	}
	golden(t, name, out)
}

func golden(t *testing.T, name string, out *txtar.Archive) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := txtar.Format(out); string(got) != string(b) {
		t.Errorf("%s is not what is made (-update, then read the difference):\n%s", name, got)
	}
}

func templateNames(list []agreement.Template) string {
	var names []string
	for i := range list {
		names = append(names, list[i].Name)
	}
	return strings.Join(names, " ")
}

// TestWhoIsOffered: what a VO may not use, what is closed or down, and what no room is left
// of, is not offered.
func TestWhoIsOffered(t *testing.T) {
	const everything = "best-effort@slurm/batch start-by@slurm/batch finish-by@slurm/batch advance-reservation@slurm/batch capacity@slurm/batch"
	for name, c := range map[string]struct {
		change func(*cluster)
		s      Settings
		want   string
	}{
		"all":        {func(*cluster) {}, Settings{}, everything},
		"kinds":      {func(*cluster) {}, Settings{Kinds: []Kind{FinishBy}}, "finish-by@slurm/batch"},
		"as many":    {func(*cluster) {}, Settings{MaxTemplates: 2}, "best-effort@slurm/batch start-by@slurm/batch"},
		"site":       {func(c *cluster) { c.policy.Deny = []string{"vo:bio"} }, Settings{}, ""},
		"share":      {func(c *cluster) { c.shares[0].Policy.Allow = []string{"vo:chem"} }, Settings{}, ""},
		"down":       {func(c *cluster) { c.down = true }, Settings{}, ""},
		"closed":     {func(c *cluster) { c.closed = []string{"batch"} }, Settings{}, ""},
		"of a peer":  {func(c *cluster) { c.domain = "north" }, Settings{}, ""},
		"no nodes":   {func(c *cluster) { c.nodes[0].available = 0 }, Settings{}, "best-effort@slurm/batch"},
		"a sliver":   {func(c *cluster) { c.nodes[0].available, c.nodes[0].environment.CPUs = 1, 1 }, Settings{}, "best-effort@slurm/batch"},
		"long names": {func(c *cluster) { c.shares[0].ID = strings.Repeat("b", 231) }, Settings{}, ""},
		"a bad name": {func(c *cluster) { c.shares[0].ID = strings.Repeat("b", maxWord+1) }, Settings{}, ""},
	} {
		site := slurm()
		c.change(&site)
		if got := templateNames(Templates(model(t, site), bio, noon, c.s)); got != c.want {
			t.Errorf("%s: there are %s", name, got)
		}
	}
	two := templateNames(Templates(model(t, slurm(), condor()), bio, noon, Settings{Kinds: []Kind{FinishBy}}))
	if want := "finish-by finish-by@condor/default finish-by@slurm/batch"; two != want {
		t.Errorf("of two sites there are %s", two)
	}
}

// TestWhoIsOfferedAsSeveral: what one of the VOs of somebody may use is offered to them, and to nobody without; so
// it is with templates of administrators that name a place.
func TestWhoIsOfferedAsSeveral(t *testing.T) {
	site := slurm()
	site.shares[0].Policy.Allow = []string{"vo:chem", "user:zoe"}
	m := model(t, site, condor())
	if vos := VOs(m); !slices.Equal(vos, []string{"chem"}) {
		t.Errorf("the VOs are %q", vos)
	}
	as := func(vos ...string) (out []resourcemodel.Subject) {
		for _, vo := range vos {
			out = append(out, resourcemodel.Subject{User: "ann", VO: vo})
		}
		return out
	}
	own := func(place string, items ...agreement.Item) *agreement.Template {
		x := Templates(model(t, slurm()), bio, noon, Settings{Kinds: []Kind{FinishBy}})[0]
		doc, err := xmldoc.ReadBytes([]byte(`<p:Place xmlns:p="`+agreement.NSPortolan+`">`+place+`</p:Place>`), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		x.Term(termPlace).(*agreement.ServiceDescription).Description = xmldoc.Detach(doc.Root())
		x.Constraints.Items = items
		return &x
	}
	here, wide, elsewhere := own("<p:Site>slurm</p:Site><p:Share>batch</p:Share>"), own("<p:Site>slurm</p:Site>"), own("<p:Site>moon</p:Site>")
	free := own("<p:Site>slurm</p:Site>", agreement.Item{Name: "site", Location: "//p:Place/p:Site"})
	for _, c := range []struct {
		as     []resourcemodel.Subject
		want   string
		usable bool
	}{
		{as(""), "finish-by@condor/default", false},
		{as("", "bio"), "finish-by@condor/default", false},
		{as("", "chem"), "finish-by finish-by@condor/default finish-by@slurm/batch", true},
		{[]resourcemodel.Subject{{User: "zoe"}}, "finish-by finish-by@condor/default finish-by@slurm/batch", true},
	} {
		if got := templateNames(TemplatesFor(m, c.as, noon, Settings{Kinds: []Kind{FinishBy}})); got != c.want {
			t.Errorf("%+v: there are %s", c.as, got)
		}
		if Usable(here, m, c.as) != c.usable || Usable(wide, m, c.as) != c.usable {
			t.Errorf("%+v: a template of the place is usable, or is not", c.as)
		}
		if !Usable(elsewhere, m, c.as) || !Usable(free, m, c.as) {
			t.Errorf("%+v: a template of another place, or of any, is not usable", c.as)
		}
	}
}

// TestCurrent: an offer by an older template is good as long as the limits have only grown.
func TestCurrent(t *testing.T) {
	at := func(nodes int, price float64, s Settings) []agreement.Template {
		c := slurm()
		c.shares[0].Slots, c.shares[0].Price = 8*nodes, price
		c.nodes[0].available = nodes
		return Templates(model(t, c), bio, noon.Add(time.Duration(nodes)*time.Hour), s)
	}
	const name = "finish-by@slurm/batch"
	id := func(list []agreement.Template) string {
		for i := range list {
			if list[i].Name == name {
				return list[i].TemplateID
			}
		}
		t.Fatal("no template")
		return ""
	}
	old := id(at(10, 0.25, Settings{}))
	for what, c := range map[string]struct {
		now  []agreement.Template
		good bool
	}{
		"the same":        {at(10, 0.25, Settings{}), true},
		"more nodes":      {at(11, 0.25, Settings{}), true},
		"fewer nodes":     {at(9, 0.25, Settings{}), false},
		"cheaper":         {at(10, 0.2, Settings{}), true},
		"dearer":          {at(10, 0.3, Settings{}), false},
		"a penalty":       {at(10, 0.25, Settings{Penalty: 1}), false},
		"longer horizon":  {at(10, 0.25, Settings{Horizon: 31 * 24 * time.Hour}), true},
		"shorter horizon": {at(10, 0.25, Settings{Horizon: 29 * 24 * time.Hour}), false},
	} {
		tpl, err := Current(c.now, name, old)
		if c.good != (err == nil) || err == nil && tpl.Name != name {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil {
			refused(t, err, fail.NotFound, "anew", name)
		}
	}
	list := at(10, 0.25, Settings{})
	for _, odd := range []string{"", "1", "..", "a-b.c.d", old + "0", "-" + old, strings.Repeat("z", 300), "zzzzzzzzzzzzzzzzzzzz.0.0", strings.Replace(old, "-", "--", 1)} {
		if _, err := Current(list, name, odd); err == nil {
			t.Errorf("%q is taken", odd)
		}
	}
	_, err := Current(list, "", old)
	refused(t, err, fail.NotFound, "TemplateName")
	_, err = Current(list, "luck", old)
	refused(t, err, fail.NotFound, `"luck"`, "best-effort@slurm/batch")
	// The id is that of the limits, not of the hour.
	if later := id(at(10, 0.25, Settings{})); later != old {
		t.Errorf("%s became %s", old, later)
	}
}

func properties(name, variable string) string {
	return `<wsag:ServiceProperties wsag:Name="` + name + `" wsag:ServiceName="run"><wsag:VariableSet><wsag:Variable wsag:Name="` + variable + `"><wsag:Location>/x</wsag:Location></wsag:Variable></wsag:VariableSet></wsag:ServiceProperties>`
}

// TestAdheres: an offer can't promise itself more than its template.
func TestAdheres(t *testing.T) {
	list := Templates(model(t, slurm()), bio, noon, Settings{Penalty: 5000})
	find := func(k Kind) *agreement.Template {
		for i := range list {
			if strings.HasPrefix(list[i].Name, string(k)+"@") {
				return &list[i]
			}
		}
		t.Fatal(k)
		return nil
	}
	by := find(StartBy)
	replace := func(old, with string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("no %s in %s", old, s)
			}
			return strings.Replace(s, old, with, 1)
		}
	}
	for what, c := range map[string]struct {
		tpl    *agreement.Template
		change func(string) string
		says   string
	}{
		"dearer":          {by, replace(">5</wsag:ValueExpression>", ">500</wsag:ValueExpression>"), "another"},
		"other level":     {by, replace(`<p:Variable name="startBy"/>`, `<p:Value type="dateTime">2000-01-01T00:00:00Z</p:Value>`), "another"},
		"one more":        {by, replace("</wsag:All>", guaranteeTerm("more", "queueWait", "<p:atMost xmlns:p='"+agreement.NSPortolan+"'>PT0S</p:atMost>")+"</wsag:All>"), "not in the template"},
		"twice due":       {by, replace("</wsag:Penalty>", "</wsag:Penalty><wsag:Penalty><wsag:AssessmentInterval><wsag:Count>1</wsag:Count></wsag:AssessmentInterval><wsag:ValueExpression>5</wsag:ValueExpression></wsag:Penalty>"), "another"},
		"another kind":    {find(BestEffort), replace("</wsag:All>", sdt("by", "<p:StartBy xmlns:p='"+agreement.NSPortolan+"'>"+at(time.Hour)+"</p:StartBy>")+"</wsag:All>"), "best-effort"},
		"as a name":       {by, replace(`wsag:Name="start"`, `wsag:Name="job2"`), "not in the template"},
		"other prefixes":  {by, strings.NewReplacer("<p:", "<q:", "</p:", "</q:", "<wsag:CustomServiceLevel ", "<wsag:CustomServiceLevel xmlns:q='"+agreement.NSPortolan+"' ", "<wsag:ServiceDescriptionTerm ", "<wsag:ServiceDescriptionTerm xmlns:q='"+agreement.NSPortolan+"' ").Replace, ""},
		"more importance": {by, replace("<wsag:BusinessValueList>", "<wsag:BusinessValueList><wsag:Importance>7</wsag:Importance>"), ""},
		"another place":   {by, replace(`[@wsag:Name='startBy']/p:StartBy</wsag:Location>`, `[@wsag:Name='job']/p:StartBy</wsag:Location>`), "others than those of the template"},
		"another metric":  {by, replace(`"xs:dateTime"`, `"xs:date"`), "others than those of the template"},
		"another schema":  {by, replace(`xmlns:xs="http://www.w3.org/2001/XMLSchema" wsag:Name="startBy"`, `xmlns:xs="urn:x" wsag:Name="startBy"`), "others than those of the template"},
		"a place of others": {by, func(s string) string {
			i := strings.Index(s, "<wsag:Variable ")
			return s[:i] + strings.Replace(s[i:], `<wsag:Location xmlns:p="`+agreement.NSPortolan+`"`, `<wsag:Location xmlns:p="urn:x"`, 1)
		}, "others than those of the template"},
		"a variable more":      {by, replace("</wsag:Variable>", `</wsag:Variable><wsag:Variable wsag:Name="load"><wsag:Location/></wsag:Variable>`), "others than those of the template"},
		"a variable renamed":   {by, replace(`<wsag:Variable xmlns:xs="http://www.w3.org/2001/XMLSchema" wsag:Name="startBy"`, `<wsag:Variable xmlns:xs="http://www.w3.org/2001/XMLSchema" wsag:Name="begin"`), "others than those of the template"},
		"a time of one's own":  {by, replace("</wsag:All>", properties("mine", "startBy")+"</wsag:All>"), "does not come from its Location"},
		"a KPI of one's own":   {by, replace("</wsag:All>", properties("mine", "queueWait")+"</wsag:All>"), "does not come from its Location"},
		"what nobody uses":     {by, replace("</wsag:All>", properties("mine", "load")+"</wsag:All>"), ""},
		"a place in two lines": {by, replace(`/wsag:ServiceDescriptionTerm[@wsag:Name='startBy']/p:StartBy</wsag:Location>`, "/wsag:ServiceDescriptionTerm[@wsag:Name='startBy']/p:StartBy\n  </wsag:Location>"), ""},
		"by a toolkit": {by, func(s string) string {
			i := strings.Index(s, "<wsag:Variable ")
			j := strings.Index(s, "</wsag:Variable>")
			v := strings.NewReplacer(` xmlns:xs="http://www.w3.org/2001/XMLSchema"`, "", ` xmlns:p="`+agreement.NSPortolan+`"`, "").Replace(s[i:j])
			return s[:i] + v + s[j:]
		}, ""},
		"no properties": {by, func(s string) string {
			a, b := strings.Index(s, "<wsag:ServiceProperties"), strings.Index(s, "</wsag:ServiceProperties>")
			return s[:a] + s[b+len("</wsag:ServiceProperties>"):]
		}, ""},
		"none": {by, func(s string) string {
			a, b := strings.Index(s, "<wsag:GuaranteeTerm"), strings.Index(s, "</wsag:GuaranteeTerm>")
			return s[:a] + s[b+len("</wsag:GuaranteeTerm>"):]
		}, ""},
	} {
		err := Adheres(c.tpl, &taken(t, c.tpl, c.change).Agreement)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		refused(t, err, fail.Invalid, c.says)
	}
}

func TestSettings(t *testing.T) {
	var s Settings
	s.EnsureDefaults()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Settings){
		"promise": func(s *Settings) { s.Promise = 101 }, "promise is": func(s *Settings) { s.Promise = -1 },
		"horizon": func(s *Settings) { s.Horizon = time.Minute }, "horizon is": func(s *Settings) { s.Horizon = 367 * 24 * time.Hour },
		"notice": func(s *Settings) { s.Notice = -1 }, "notice is": func(s *Settings) { s.Notice = s.Horizon/2 + 1 },
		"window": func(s *Settings) { s.MaxWindow = s.Horizon + 1 }, "window is": func(s *Settings) { s.MaxWindow = time.Second },
		"grace": func(s *Settings) { s.Grace = 2 * time.Hour }, "grace is": func(s *Settings) { s.Grace = time.Millisecond },
		"penalty": func(s *Settings) { s.Penalty = -1 }, "penalty is": func(s *Settings) { s.Penalty = maxPenalty + 1 },
		"availability": func(s *Settings) { s.Availability = math.NaN() }, "availability is": func(s *Settings) { s.Availability = 1.01 },
		"unit": func(s *Settings) { s.Unit = strings.Repeat("u", maxWord+1) }, "kinds": func(s *Settings) { s.Kinds = []Kind{"luck"} },
		"templates": func(s *Settings) { s.MaxTemplates = -1 }, "templates is": func(s *Settings) { s.MaxTemplates = 10001 },
	} {
		bad := s
		change(&bad)
		refused(t, bad.Validate(), fail.Invalid, what)
	}
}
