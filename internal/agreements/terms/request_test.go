package terms

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

const hours = time.Hour

func TestReadKinds(t *testing.T) {
	place := sdt("place", "<p:Place><p:Site>slurm</p:Site><p:Share>batch</p:Share></p:Place>")
	for name, c := range map[string]struct {
		terms []string
		want  Service
		kind  Kind
	}{
		"best effort": {[]string{sdt("job", job("x", 0, ""))}, Service{}, BestEffort},
		"with a place": {
			[]string{sdt("job", job("x", 60, cpus(4))), place},
			Service{Place: Place{"slurm", "batch"}, Duration: time.Minute},
			BestEffort,
		},
		"start by": {
			[]string{sdt("job", job("x", 60, "")), sdt("by", "<p:StartBy>"+at(hours)+"</p:StartBy>")},
			Service{StartBy: noon.Add(hours), Duration: time.Minute},
			StartBy,
		},
		"finish by": {
			[]string{sdt("job", job("x", 60, "")), sdt("by", "<p:FinishBy>"+at(hours)+"</p:FinishBy>")},
			Service{FinishBy: noon.Add(hours), Duration: time.Minute},
			FinishBy,
		},
		"start by and finish by": {
			[]string{sdt("job", job("x", 60, "")), sdt("by", "<p:FinishBy>"+at(hours)+"</p:FinishBy>"), sdt("start", "<p:StartBy>"+at(hours/2)+"</p:StartBy>")},
			Service{FinishBy: noon.Add(hours), StartBy: noon.Add(hours / 2), Duration: time.Minute},
			FinishBy,
		},
		"window": {
			[]string{sdt("window", window(hours, 2*hours)), sdt("job", job("x", 60, ""))},
			Service{Window: Window{noon.Add(hours), noon.Add(2 * hours)}, Duration: hours},
			AdvanceReservation,
		},
		"price": {
			[]string{sdt("job", job("x", 60, "")), sdt("price", `<p:Price unit="EUR"> 0.125 </p:Price>`)},
			Service{Price: &Price{0.125, "EUR"}, Duration: time.Minute},
			BestEffort,
		},
		"capacity": {
			[]string{sdt("c", "<p:Capacity><p:Site>slurm</p:Site><p:Nodes>3</p:Nodes><p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>")},
			Service{Place: Place{Site: "slurm"}, Window: Window{noon.Add(hours), noon.Add(2 * hours)}, Duration: hours},
			Capacity,
		},
		"WSAG4J's window": {
			[]string{sdt("job", job("x", 60, "")), sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"><t:StartTime>`+at(hours)+`</t:StartTime><t:EndTime>`+at(2*hours)+`</t:EndTime><t:Duration>60</t:Duration></t:TimeConstraint>`)},
			Service{Window: Window{noon.Add(hours), noon.Add(2 * hours)}, Duration: hours},
			AdvanceReservation,
		},
		"WSAG4J's deadline": {
			[]string{sdt("job", job("x", 60, "")), sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"><t:EndTime>`+at(2*hours)+`</t:EndTime></t:TimeConstraint>`)},
			Service{FinishBy: noon.Add(2 * hours), Duration: time.Minute},
			FinishBy,
		},
		"WSAG4J's start": {
			[]string{sdt("job", job("x", 60, "")), sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"><t:StartTime>`+at(2*hours)+`</t:StartTime></t:TimeConstraint>`)},
			Service{NotBefore: noon.Add(2 * hours), Duration: time.Minute},
			BestEffort,
		},
		"WSAG4J's nothing": {
			[]string{sdt("job", job("x", 0, "")), sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"> </t:TimeConstraint>`)},
			Service{},
			BestEffort,
		},
		"a bare description": {
			[]string{sdt("job", `<j:JobDescription xmlns:j="`+jsdl.NS+`"><j:Resources>`+cpus(7)+`</j:Resources></j:JobDescription>`)},
			Service{},
			BestEffort,
		},
		"the job's own earliest start": {
			[]string{sdt("job", job("x", 0, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:Share>batch</q:Share><q:NotBefore>`+at(hours)+`</q:NotBefore></q:Placement>`))},
			Service{NotBefore: noon.Add(hours), Place: Place{Share: "batch"}},
			BestEffort,
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := asked(t, c.terms...)
			if q.Kind != c.kind || len(q.Services) != 1 {
				t.Fatalf("read as %s of %d services", q.Kind, len(q.Services))
			}
			v := q.Services[0]
			if v.Name != "run" || v.Duration != c.want.Duration || v.Place != c.want.Place || !v.NotBefore.Equal(c.want.NotBefore) || !v.StartBy.Equal(c.want.StartBy) ||
				!v.FinishBy.Equal(c.want.FinishBy) || v.Window != c.want.Window || (v.Price == nil) != (c.want.Price == nil) || v.Price != nil && *v.Price != *c.want.Price {
				t.Errorf("read as %+v", v)
			}
			if (v.Job == nil) != (v.Capacity != nil) || (v.Document == nil) != (v.Job == nil) {
				t.Errorf("a job and a capacity: %v, %v", v.Job, v.Capacity)
			}
			if v.Job != nil {
				if _, ps := jsdl.Parse(v.Document, jsdl.Options{}); len(ps) > 0 {
					t.Errorf("the document is no job: %v", ps)
				}
			}
		})
	}
	q := asked(t, sdt("job", `<j:JobDescription xmlns:j="`+jsdl.NS+`"><j:Resources>`+cpus(7)+`</j:Resources></j:JobDescription>`))
	if q.Services[0].Need.CPUs != 7 {
		t.Errorf("%+v", q.Services[0].Need)
	}
}

func TestReadSeveral(t *testing.T) {
	q := asked(t,
		sdtOf("b", "job b", job("x", 60, "")), sdtOf("a", "window a", window(2*hours, 4*hours)),
		sdtOf("b", "window b", window(3*hours, 5*hours)), sdtOf("a", "job a", job("y", 60, "")),
		guaranteeTerm("late", "startTime", `<p:LessOrEqual><p:Variable name="startTime"/><p:Variable name="windowStart"/></p:LessOrEqual>`, "b"),
	)
	if len(q.Services) != 2 || q.Services[0].Name != "b" || q.Services[1].Name != "a" || q.Kind != AdvanceReservation {
		t.Fatalf("%+v", q)
	}
	if want := (Window{noon.Add(2 * hours), noon.Add(5 * hours)}); q.Window != want {
		t.Errorf("the window is %v", q.Window)
	}
	if len(q.Guarantees) != 1 || q.Promises[0].Name != q.Guarantees[0].Name {
		t.Errorf("%v", q.Guarantees)
	}
	// The guarantee is about the service b alone, and so is the window in it.
	if c := q.constants(q.Promises[0].Scopes); !c["windowStart"].Equal(noon.Add(3 * hours)) {
		t.Errorf("%v", c)
	}
}

func guaranteeTerm(name, kpi, level string, scopes ...string) string {
	var s strings.Builder
	for _, x := range scopes {
		fmt.Fprintf(&s, `<wsag:ServiceScope wsag:ServiceName="%s"/>`, x)
	}
	return fmt.Sprintf(`<wsag:GuaranteeTerm wsag:Name="%s" wsag:Obligated="ServiceProvider">%s<wsag:ServiceLevelObjective><wsag:KPITarget><wsag:KPIName>%s</wsag:KPIName><wsag:CustomServiceLevel>%s</wsag:CustomServiceLevel></wsag:KPITarget></wsag:ServiceLevelObjective><wsag:BusinessValueList/></wsag:GuaranteeTerm>`,
		name, s.String(), kpi, level)
}

// TestReadRefuses: what is hostile, contradicts itself, is over or not understood.
func TestReadRefuses(t *testing.T) {
	one := sdt("job", job("x", 3600, ""))
	capacity := func(inner string) string { return sdt("c", "<p:Capacity>"+inner+"</p:Capacity>") }
	span := "<p:StartTime>" + at(hours) + "</p:StartTime><p:EndTime>" + at(2*hours) + "</p:EndTime>"
	wsag4j := func(inner string) string {
		return sdt("t", `<TimeConstraint xmlns="`+NSWSAG4J+`">`+inner+`</TimeConstraint>`)
	}
	many := func(n int) (list []string) {
		for i := range n {
			list = append(list, sdtOf(fmt.Sprint("s", i), fmt.Sprint("job", i), job("x", 0, "")))
		}
		return list
	}
	promises := func(n int) []string {
		list := []string{one}
		for i := range n {
			list = append(list, guaranteeTerm(fmt.Sprint("g", i), "queueWait", "<p:atMost>PT1H</p:atMost>"))
		}
		return list
	}
	until := func(d time.Duration) []string { return []string{one, sdt("w", window(hours, hours+d))} }
	for name, c := range map[string]struct {
		terms []string
		kind  fail.Kind
		says  []string
	}{
		"a stranger":              {[]string{one, sdt("odd", `<x:Thing xmlns:x="urn:x"/>`)}, fail.Unsupported, []string{`"odd"`, "urn:x", "Window"}},
		"no namespace":            {[]string{one, sdt("odd", `<JobDefinition xmlns="urn:j"/>`)}, fail.Unsupported, []string{`"odd"`}},
		"ours and unknown":        {[]string{one, sdt("odd", `<p:Luck/>`)}, fail.Unsupported, []string{"Luck"}},
		"an EPR":                  {[]string{sdt("epr", `<a:EndpointReference xmlns:a="http://www.w3.org/2005/08/addressing"><a:Address>http://foo.org/</a:Address></a:EndpointReference>`)}, fail.Unsupported, []string{`"epr"`}},
		"a reference":             {[]string{one, `<wsag:ServiceReference wsag:Name="ref" wsag:ServiceName="run"><x:e xmlns:x="urn:x"/></wsag:ServiceReference>`}, fail.Unsupported, []string{`"ref"`, "ServiceReference"}},
		"no job":                  {[]string{sdt("w", window(hours, 2*hours))}, fail.Invalid, []string{"no job"}},
		"two jobs":                {[]string{one, sdt("job2", job("y", 0, ""))}, fail.Invalid, []string{`"job"`, `"job2"`}},
		"two windows":             {[]string{one, sdt("w", window(hours, 2*hours)), wsag4j(strings.ReplaceAll(span, "p:", ""))}, fail.Invalid, []string{"window"}},
		"window and deadline":     {[]string{one, sdt("w", window(hours, 2*hours)), sdt("f", "<p:FinishBy>"+at(2*hours)+"</p:FinishBy>")}, fail.Invalid, []string{"deadline", `"f"`}},
		"capacity and job":        {[]string{one, capacity("<p:CPUs>1</p:CPUs>" + span)}, fail.Invalid, []string{"Capacity"}},
		"capacity and place":      {[]string{sdt("pl", "<p:Place><p:Site>s</p:Site></p:Place>"), capacity("<p:CPUs>1</p:CPUs>" + span)}, fail.Invalid, []string{"place"}},
		"kinds":                   {[]string{one, sdtOf("b", "j2", job("y", 60, "")), sdtOf("b", "w2", window(hours, 2*hours))}, fail.Unsupported, []string{"best-effort", "advance-reservation"}},
		"invalid job":             {[]string{sdt("job", `<j:JobDefinition xmlns:j="`+jsdl.NS+`"/>`)}, fail.Invalid, []string{`"job"`, "JobDescription"}},
		"impossible job":          {[]string{sdt("job", job("x", 0, "<j:TotalCPUCount><j:Exact>1.5</j:Exact></j:TotalCPUCount>"))}, fail.Unsupported, []string{"TotalCPUCount"}},
		"window backwards":        {[]string{one, sdt("w", window(2*hours, hours))}, fail.Unsupported, []string{"not after"}},
		"window of nothing":       {[]string{one, sdt("w", window(hours, hours))}, fail.Unsupported, []string{"not after"}},
		"half a window":           {[]string{one, sdt("w", "<p:Window><p:StartTime>"+at(hours)+"</p:StartTime></p:Window>")}, fail.Unsupported, []string{"EndTime"}},
		"a window turned":         {[]string{one, sdt("w", "<p:Window><p:EndTime>"+at(hours)+"</p:EndTime><p:StartTime>"+at(0)+"</p:StartTime></p:Window>")}, fail.Unsupported, []string{"order"}},
		"short window":            {until(hours - time.Second), fail.Invalid, []string{"1h0m0s"}},
		"long window":             {until(DefaultMaxWindow + time.Second), fail.Invalid, []string{"168h0m0s"}},
		"far window":              {[]string{one, sdt("w", window(DefaultHorizon-hours, DefaultHorizon+time.Second))}, fail.Invalid, []string{"beyond"}},
		"past window":             {[]string{one, sdt("w", window(-3*hours, hours))}, fail.Invalid, []string{"over"}},
		"past start":              {[]string{one, sdt("s", "<p:StartBy>"+at(0)+"</p:StartBy>")}, fail.Invalid, []string{"over"}},
		"past finish":             {[]string{one, sdt("s", "<p:FinishBy>"+at(-time.Second)+"</p:FinishBy>")}, fail.Invalid, []string{"over"}},
		"far start":               {[]string{one, sdt("s", "<p:StartBy>"+at(DefaultHorizon+time.Second)+"</p:StartBy>")}, fail.Invalid, []string{"beyond"}},
		"no zone":                 {[]string{one, sdt("s", "<p:StartBy>2026-11-27T14:00:00</p:StartBy>")}, fail.Unsupported, []string{"zone"}},
		"no day":                  {[]string{one, sdt("s", "<p:StartBy>2026-02-30T14:00:00Z</p:StartBy>")}, fail.Unsupported, []string{"calendar"}},
		"text in a window":        {[]string{one, sdt("s", "<p:Window>soon</p:Window>")}, fail.Unsupported, []string{"soon"}},
		"an element in a time":    {[]string{one, sdt("s", "<p:StartBy><p:x/></p:StartBy>")}, fail.Unsupported, []string{"takes text"}},
		"an attribute":            {[]string{one, sdt("s", `<p:StartBy soon="1">`+at(hours)+"</p:StartBy>")}, fail.Unsupported, []string{"soon"}},
		"no CPUs":                 {[]string{capacity("<p:CPUs>0</p:CPUs>" + span)}, fail.Unsupported, []string{"from 1"}},
		"too many CPUs":           {[]string{capacity("<p:CPUs>1000000001</p:CPUs>" + span)}, fail.Unsupported, []string{"1000000000"}},
		"CPUs and nodes":          {[]string{capacity("<p:CPUs>1</p:CPUs><p:Nodes>1</p:Nodes>" + span)}, fail.Unsupported, []string{"2 amounts"}},
		"no amount":               {[]string{capacity(span)}, fail.Unsupported, []string{"0 amounts"}},
		"a share of no site":      {[]string{capacity("<p:Share>s</p:Share><p:CPUs>1</p:CPUs>" + span)}, fail.Unsupported, []string{"Site"}},
		"a place of no site":      {[]string{one, sdt("s", "<p:Place><p:Share>s</p:Share></p:Place>")}, fail.Unsupported, []string{"Site"}},
		"a long name":             {[]string{one, sdt("s", "<p:Place><p:Site>"+strings.Repeat("s", maxWord+1)+"</p:Site></p:Place>")}, fail.Unsupported, []string{"256 characters"}},
		"two shares":              {[]string{sdt("job", job("x", 0, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:Share>long</q:Share></q:Placement>`)), sdt("s", "<p:Place><p:Site>s</p:Site><p:Share>short</p:Share></p:Place>")}, fail.Invalid, []string{"long", "short"}},
		"negative price":          {[]string{one, sdt("s", "<p:Price>-1</p:Price>")}, fail.Unsupported, []string{"price"}},
		"a price like no other":   {[]string{one, sdt("s", "<p:Price>NaN</p:Price>")}, fail.Unsupported, []string{"price"}},
		"WSAG4J's duration":       {[]string{one, wsag4j("<StartTime>" + at(hours) + "</StartTime><Duration>90</Duration>")}, fail.Unsupported, []string{"unit"}},
		"WSAG4J's other duration": {[]string{one, wsag4j(strings.ReplaceAll(span, "p:", "") + "<Duration>61</Duration>")}, fail.Unsupported, []string{"unit"}},
		"a stranger's time":       {[]string{one, sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"><p:StartTime>`+at(hours)+`</p:StartTime></t:TimeConstraint>`)}, fail.Unsupported, []string{"StartTime"}},
		"late job":                {[]string{sdt("job", job("x", 60, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:NotBefore>`+at(2*hours)+`</q:NotBefore></q:Placement>`)), sdt("w", window(hours, 3*hours))}, fail.Invalid, []string{"must not start before"}},
		"later than its start":    {[]string{sdt("job", job("x", 60, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:NotBefore>`+at(2*hours)+`</q:NotBefore></q:Placement>`)), sdt("s", "<p:StartBy>"+at(hours)+"</p:StartBy>")}, fail.Invalid, []string{"must not start before"}},
		"late for its deadline":   {[]string{sdt("job", job("x", 3600, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:NotBefore>`+at(2*hours)+`</q:NotBefore></q:Placement>`)), sdt("s", "<p:FinishBy>"+at(3*hours-time.Second)+"</p:FinishBy>")}, fail.Invalid, []string{"may run for"}},
		"an early deadline":       {[]string{sdt("job", job("x", 60, `<q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:Deadline>`+at(hours)+`</q:Deadline></q:Placement>`)), sdt("w", window(hours, 3*hours))}, fail.Invalid, []string{"Deadline"}},
		"another KPI":             {[]string{one, guaranteeTerm("g", "luck", "<p:atMost>1</p:atMost>")}, fail.Unsupported, []string{"luck", "queueWait"}},
		"another language":        {[]string{one, guaranteeTerm("g", "queueWait", `<x:r xmlns:x="urn:x"/>`)}, fail.Unsupported, []string{"urn:x"}},
		"no such constant":        {[]string{one, guaranteeTerm("g", "startTime", `<p:LessOrEqual><p:Variable name="startTime"/><p:Variable name="startBy"/></p:LessOrEqual>`)}, fail.Invalid, []string{"startBy"}},
		"no such service":         {[]string{one, guaranteeTerm("g", "queueWait", "<p:atMost>PT1H</p:atMost>", "walk")}, fail.Invalid, []string{`"walk"`}},
		"a part of a service":     {[]string{one, strings.Replace(guaranteeTerm("g", "queueWait", "<p:atMost>PT1H</p:atMost>", "run"), `wsag:ServiceName="run"/>`, `wsag:ServiceName="run"><x:half xmlns:x="urn:x"/></wsag:ServiceScope>`, 1)}, fail.Unsupported, []string{"half"}},
		"the consumer's promise":  {[]string{one, strings.Replace(guaranteeTerm("g", "queueWait", "<p:atMost>PT1H</p:atMost>"), "ServiceProvider", "ServiceConsumer", 1)}, fail.Unsupported, []string{"consumer"}},
		"a strange variable":      {[]string{one, guaranteeTerm("g", "queueWait", `<p:Less><p:Variable name="load"/><p:Value>1</p:Value></p:Less>`), `<wsag:ServiceProperties wsag:Name="v" wsag:ServiceName="run"><wsag:VariableSet><wsag:Variable wsag:Name="load"><wsag:Location>/x</wsag:Location></wsag:Variable></wsag:VariableSet></wsag:ServiceProperties>`}, fail.Invalid, []string{`load`, `"g"`}},
		"properties of nothing":   {[]string{one, `<wsag:ServiceProperties wsag:Name="v" wsag:ServiceName="walk"><wsag:VariableSet><wsag:Variable wsag:Name="queueWait"><wsag:Location>/x</wsag:Location></wsag:Variable></wsag:VariableSet></wsag:ServiceProperties>`}, fail.Invalid, []string{`"walk"`}},
		"services":                {many(MaxServices + 1), fail.Exhausted, []string{"16"}},
		"guarantees":              {promises(MaxGuarantees + 1), fail.Exhausted, []string{"64"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(offer(t, document(c.terms...)), noon, Settings{})
			refused(t, err, c.kind, c.says...)
		})
	}
	for name, terms := range map[string][]string{
		"services": many(MaxServices), "guarantees": promises(MaxGuarantees), "longest window": until(DefaultMaxWindow), "exact window": until(hours),
		"farthest": {one, sdt("w", window(DefaultHorizon-hours, DefaultHorizon))}, "begun": {one, sdt("w", window(-DefaultGrace, hours))},
		"an idle variable": {one, `<wsag:ServiceProperties wsag:Name="v" wsag:ServiceName="run"><wsag:VariableSet><wsag:Variable wsag:Name="load"><wsag:Location>/x</wsag:Location></wsag:Variable></wsag:VariableSet></wsag:ServiceProperties>`},
		"longest name":     {one, sdt("s", "<p:Place><p:Site>"+strings.Repeat("s", maxWord)+"</p:Site></p:Place>")},
	} {
		if _, err := Read(offer(t, document(terms...)), noon, Settings{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Run("the consumer provides", func(t *testing.T) {
		_, err := Read(offer(t, strings.Replace(document(one), "AgreementResponder", "AgreementInitiator", 1)), noon, Settings{})
		refused(t, err, fail.Unsupported, "AgreementInitiator")
	})
	t.Run("a choice is left", func(t *testing.T) {
		_, err := Read(offer(t, document("<wsag:ExactlyOne>"+one+"</wsag:ExactlyOne>")), noon, Settings{})
		refused(t, err, fail.Internal)
	})
	t.Run("nothing", func(t *testing.T) {
		_, err := Read(&agreement.Agreement{Context: agreement.Context{ServiceProvider: agreement.Responder}}, noon, Settings{})
		refused(t, err, fail.Invalid, "no service")
	})
	t.Run("notice", func(t *testing.T) {
		s := Settings{Notice: 3 * hours}
		_, err := Read(offer(t, document(one, sdt("w", window(2*hours, 4*hours)))), noon, s)
		refused(t, err, fail.Invalid, "before "+at(3*hours))
		if _, err := Read(offer(t, document(one, sdt("w", window(3*hours, 4*hours)))), noon, s); err != nil {
			t.Error(err)
		}
	})
}

func TestExpiration(t *testing.T) {
	w := []string{sdt("job", job("x", 60, "")), sdt("w", window(hours, 2*hours))}
	for until, says := range map[time.Duration]string{-time.Second: "is over", 0: "is over", 2*hours - time.Second: "before what is promised"} {
		_, err := Read(offer(t, documentUntil(at(until), w...)), noon, Settings{})
		refused(t, err, fail.Invalid, says)
	}
	q, err := Read(offer(t, documentUntil(at(2*hours), w...)), noon, Settings{})
	if err != nil || !q.Expiration.Equal(noon.Add(2*hours)) {
		t.Errorf("%v %v", q, err)
	}
}

// TestSamples: WSAG4J's and others' templates are understood, or refused for what is
// strange in them.
func TestSamples(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "samples", "soap")
	for file, says := range map[string]string{
		"wsag-wsag4j-template-2.xml":             "",
		"wsag-wsag4j-template-5.xml":             "EndpointReference",
		"wsag-wsag4j-betaas-template-simple.xml": "no job",
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		list, err := Load(map[string][]byte{file: b})
		switch {
		case says == "" && (err != nil || len(list) != 1):
			t.Errorf("%s: %v", file, err)
		case says != "" && (err == nil || !strings.Contains(fail.Sentence(err), says) || !strings.HasPrefix(fail.Sentence(err), file+":")):
			t.Errorf("%s: %v", file, err)
		}
	}
}

// FuzzRead: no offer makes it panic, and whatever is read is sound.
func FuzzRead(f *testing.F) {
	one := sdt("job", job("x", 3600, cpus(2)))
	for _, terms := range [][]string{
		{one},
		{one, sdt("w", window(hours, 2*hours))},
		{one, sdt("s", "<p:StartBy>"+at(hours)+"</p:StartBy>"), guaranteeTerm("g", "startTime", `<p:LessOrEqual><p:Variable name="startTime"/><p:Variable name="startBy"/></p:LessOrEqual>`, "run")},
		{one, sdt("s", "<p:FinishBy>"+at(2*hours)+"</p:FinishBy>"), sdt("pr", `<p:Price unit="x">0.5</p:Price>`)},
		{sdt("c", "<p:Capacity><p:Site>slurm</p:Site><p:Slots>3</p:Slots><p:StartTime>"+at(hours)+"</p:StartTime><p:EndTime>"+at(2*hours)+"</p:EndTime></p:Capacity>")},
		{one, sdt("t", `<t:TimeConstraint xmlns:t="`+NSWSAG4J+`"><t:StartTime>`+at(hours)+`</t:StartTime></t:TimeConstraint>`), sdtOf("b", "jb", job("y", 1, ""))},
	} {
		f.Add([]byte(document(terms...)))
	}
	m := model(f, slurm(), condor(), mixed())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := agreement.ParseOffer(b)
		if err != nil {
			return
		}
		alternatives, _ := agreement.Choose(o.Terms, nil, 4)
		for _, alt := range alternatives {
			a := o.Agreement
			a.Terms = alt.Terms
			for _, s := range Summary(&a, nil) {
				if s == "" {
					t.Error("an empty sentence")
				}
			}
			q, err := Read(&a, noon, Settings{})
			if err != nil {
				if fail.Sentence(err) == "" || fail.KindOf(err) == fail.Internal {
					t.Errorf("%v", err)
				}
				continue
			}
			plans, err := Plans(q, m, bio, noon, Settings{})
			if err == nil {
				sound(t, q, plans)
			}
		}
	})
}
