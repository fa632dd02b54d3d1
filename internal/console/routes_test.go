package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/jsdl"
)

// running is a gateway with two sites, in memory, and its API as the program serves it.
type running struct {
	*testing.T
	*broker.Broker
	api     http.Handler
	client  *http.Client
	there   *fake.World
	doc     description
	met     map[string]bool // "GET /path", of requests that were granted
	queries map[string]bool // "GET /path name", of their parameters
	given   map[string]bool // "GET /path media/type", of the answers
}

// description is of an OpenAPI document what the test needs.
type description struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]any }
}

type operation struct {
	Parameters []struct {
		Name, In string
		Required bool
		Schema   map[string]any
	}
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]struct{ Content map[string]media }
}

type media struct{ Schema map[string]any }

func run(t *testing.T) *running {
	st := mem.New()
	here := fake.NewWorld(4)
	r := &running{T: t, there: fake.NewWorld(2), met: map[string]bool{}, queries: map[string]bool{}, given: map[string]bool{}}
	machine := func(id string, cpus int) fake.Options {
		return fake.Options{Environment: adapters.Environment{ID: id, OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: cpus, Memory: 8 << 30, Nodes: 1, Available: 1, HostNames: []string{id + "1"}}}
	}
	b, err := broker.New(broker.Config{
		Store: st, Alone: true, BaseURL: func() string { return "http://gw.example.org/bes" }, Jitter: func() float64 { return 0.5 },
		Sites: []broker.Site{{Name: "here", Adapter: here.Open(machine("thin", 4))}, {Name: "there", Adapter: r.there.Open(machine("fat", 16))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		here.Close()
		r.there.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = st.Close()
	})
	<-b.Ready()
	since := time.Now()
	r.Broker = b
	r.api = console.New(b, console.Options{
		Version: "7.1", Peers: newNeighbours(), Purchases: shop{}, Finder: finder(), Agreements: accounts{},
		Principal: func(*http.Request) (soap.Principal, error) { return soap.Principal{Name: "ada", Method: "none"}, nil },
		Configuration: func() *console.Configuration {
			return &console.Configuration{File: "g.yaml", Read: since, Problem: "g.yaml:3: no", Since: &since}
		},
	})
	mounts := map[string]http.Handler{}
	for _, p := range console.Paths() {
		mounts[p] = r.api
	}
	l := &pipes{make(chan net.Conn), make(chan struct{})}
	server := soap.NewHTTPServer(soap.NewRouter(mounts), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	transport := &http.Transport{DialContext: l.dial}
	r.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	_, body, _ := r.send(http.MethodGet, console.DescriptionPath, "")
	if err := json.Unmarshal([]byte(body), &r.doc); err != nil {
		t.Fatal(err)
	}
	return r
}

// pipes is a listener in memory.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.dialled <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (r *running) send(method, path, body string) (int, string, http.Header) {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), method, "http://gw.example.org"+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	a, err := r.client.Do(q)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	return a.StatusCode, string(b), a.Header
}

// job is a document for the fake sites.
func job(script, resources string) string {
	return `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `"><jsdl:JobDescription>` +
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:` + script + `</p:Executable></p:POSIXApplication></jsdl:Application>` +
		`<jsdl:Resources>` + resources + `</jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>`
}

func at(site string) string {
	return `<jsdl:CandidateHosts><jsdl:HostName>` + site + `</jsdl:HostName></jsdl:CandidateHosts>`
}

// submit gives the ID of an activity once nothing happens any more.
func (r *running) submit(doc string) string {
	r.Helper()
	a, err := r.CreateActivity(soap.WithPrincipal(r.Context(), soap.Principal{Name: "ada", Method: "none"}), &bes.CreateActivityRequest{Document: []byte(doc)})
	if err != nil {
		r.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	id, ok := bes.ActivityID(a.Activity)
	if !ok {
		r.Fatalf("%+v has no ID", a.Activity)
	}
	return id
}

// answers sends a request to a path of the description, holds it and what comes to the
// description, and gives what came.
func (r *running) answers(code int, method, path string, fill map[string]string, query, body string) string {
	r.Helper()
	what := method + " " + path
	op, ok := r.doc.Paths[path][strings.ToLower(method)]
	if !ok {
		r.Errorf("%s is not described", what)
		return ""
	}
	url := path
	for name, value := range fill {
		url = strings.ReplaceAll(url, "{"+name+"}", value)
	}
	if query != "" {
		url += "?" + query
	}
	got, answer, header := r.send(method, url, body)
	mediaType := header.Get("Content-Type")
	if got != code {
		r.Errorf("%s: %d, not %d: %s", what, got, code, answer)
		return answer
	}
	response := op.Responses["default"]
	if code == http.StatusOK {
		response = op.Responses["200"]
		r.met[what], r.given[what+" "+mediaType] = true, true
		r.asked(what, &op, fill, query, body)
	}
	content, ok := response.Content[mediaType]
	if !ok {
		r.Errorf("%s answers %d as %s, which is not described", what, code, mediaType)
		return answer
	}
	r.holds(what, mediaType, answer, content)
	if method == http.MethodGet && code == http.StatusOK {
		got, nothing, of := r.send(http.MethodHead, url, "")
		if r.met["HEAD "+path] = true; got != http.StatusOK || nothing != "" || of.Get("Content-Type") != mediaType {
			r.Errorf("HEAD %s: %d %s %q", path, got, of.Get("Content-Type"), nothing)
		}
	}
	return answer
}

// holds holds a text to the schema of its media type.
func (r *running) holds(what, mediaType, text string, content media) {
	r.Helper()
	j := &judge{components: r.doc.Components.Schemas}
	var v any = text
	switch mediaType {
	case "application/json":
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			r.Errorf("%s: %v: %s", what, err, text)
		}
	case "application/xml":
		d := xml.NewDecoder(strings.NewReader(text))
		var err error
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			r.Errorf("%s: %v", what, err)
		}
	case "application/x-ndjson":
		lines := bufio.NewScanner(strings.NewReader(text))
		n := 0
		for ; lines.Scan(); n++ {
			if !json.Valid(lines.Bytes()) {
				r.Errorf("%s: %q is no JSON", what, lines.Text())
			}
		}
		if n == 0 {
			r.Errorf("%s: there are no lines", what)
		}
	default:
		r.Errorf("%s: nobody judges %s", what, mediaType)
	}
	j.value(what, v, content.Schema)
	for _, p := range j.problems {
		r.Error(p)
	}
}

// asked holds a request that was granted to the description.
func (r *running) asked(what string, op *operation, fill map[string]string, query, body string) {
	r.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		r.Fatal(err)
	}
	known := map[string]bool{}
	for _, p := range op.Parameters {
		known[p.In+" "+p.Name] = true
		of, schema := values[p.Name], p.Schema
		if p.In == "path" {
			of = []string{fill[p.Name]}
		}
		if len(of) == 0 {
			if p.Required {
				r.Errorf("%s: it is granted without %s", what, p.Name)
			}
			continue
		}
		r.queries[what+" "+p.Name] = true
		if items, several := schema["items"].(map[string]any); several {
			schema = items
		} else if len(of) > 1 {
			r.Errorf("%s: %s stands there %d times", what, p.Name, len(of))
		}
		for _, text := range of {
			var v any = text
			if schema["type"] == "integer" {
				n, err := strconv.Atoi(text)
				if v = float64(n); err != nil {
					r.Errorf("%s: %s: %v", what, p.Name, err)
				}
			}
			if schema["type"] == "boolean" {
				yes, err := strconv.ParseBool(text)
				if v = yes; err != nil {
					r.Errorf("%s: %s: %v", what, p.Name, err)
				}
			}
			j := &judge{components: r.doc.Components.Schemas}
			j.value(what+" "+p.Name, v, schema)
			for _, p := range j.problems {
				r.Error(p)
			}
		}
	}
	for name := range values {
		if !known["query "+name] {
			r.Errorf("%s: the parameter %s is not described", what, name)
		}
	}
	for name := range fill {
		if !known["path "+name] {
			r.Errorf("%s: the variable %s of the path is not described", what, name)
		}
	}
	switch {
	case op.RequestBody == nil && body != "":
		r.Errorf("%s: that it takes a body is not described", what)
	case op.RequestBody != nil && len(op.RequestBody.Content) != 1:
		r.Errorf("%s: it takes %v", what, op.RequestBody.Content)
	case op.RequestBody != nil:
		for mediaType, content := range op.RequestBody.Content {
			r.holds(what+" takes", mediaType, body, content)
		}
	}
}

// Every route of a gateway that runs is described, everything that is described is a route,
// and each takes and answers what the description says, granted and refused.
func TestEveryRouteOfAGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t)
		const get, put, post = http.MethodGet, http.MethodPut, http.MethodPost
		of := func(id string) map[string]string { return map[string]string{"id": id} }
		site := func(name string) map[string]string { return map[string]string{"site": name} }

		r.answers(200, put, console.PoliciesPath, nil, "", `{"scope":"gateway","kind":"selection","setting":"best-fit","shadow":true}`)
		r.answers(200, put, console.PoliciesPath, nil, "", `{"scope":"vo:bio","kind":"scheduling","setting":"priority{age=2h}"}`)
		r.answers(200, put, console.PoliciesPath, nil, "", `{"scope":"queue:long","kind":"pairing","setting":"assignment"}`)
		r.answers(200, put, console.PoliciesPath, nil, "", `{"scope":"queue:long","kind":"pairing"}`)
		r.answers(400, put, console.PoliciesPath, nil, "", `{"scope":"gateway","kind":"scheduling","setting":"lifo"}`)
		r.answers(200, put, console.LimitsPath, nil, "", `{"subject":"site:there","max":2}`)
		r.answers(200, put, console.LimitsPath, nil, "", `{"subject":"user-cpus:*","max":100}`)
		r.answers(200, put, console.LimitsPath, nil, "", `{"subject":"vo:bio","max":0}`)
		r.answers(200, put, console.LimitsPath, nil, "", `{"subject":"vo:bio"}`)
		r.answers(400, put, console.LimitsPath, nil, "", `{"subject":"there","max":1}`)

		ended := r.submit(job("exit 3", at("here")))
		anywhere := r.submit(job("hang", ""))
		hangs, more := r.submit(job("hang", at("there"))), r.submit(job("hang", at("there")))
		waits := r.submit(job("hang", at("there"))) // for the limit
		wide := `<jsdl:TotalCPUCount><jsdl:LowerBoundedRange>64</jsdl:LowerBoundedRange></jsdl:TotalCPUCount>`

		for _, id := range []string{ended, anywhere, hangs, more, waits} {
			r.answers(200, get, console.DecisionsPath, of(id), "", "")
		}
		r.answers(404, get, console.DecisionsPath, of(known), "", "")
		r.answers(200, get, console.PoliciesPath, nil, "", "")
		r.answers(200, get, console.LimitsPath, nil, "", "")
		r.answers(200, get, console.ComparePath, nil, "", "")
		if got := r.answers(200, get, console.ComparePath, nil, "most=1000", ""); strings.Contains(got, `"decisions": 0`) {
			t.Errorf("nothing is compared: %s", got)
		}
		r.answers(400, get, console.ComparePath, nil, "most=all", "")
		r.answers(200, post, console.MatchPath, nil, "", job("exit 0", at("here")))
		r.answers(200, post, console.MatchPath, nil, "vo=bio", job("exit 0", at("there")))
		if got := r.answers(200, post, console.MatchPath, nil, "", job("exit 0", wide)); !strings.Contains(got, `"could": false`) || !strings.Contains(got, `"nearest"`) {
			t.Errorf("64 CPUs: %s", got)
		}
		r.answers(400, post, console.MatchPath, nil, "", "<nothing/>")
		r.answers(200, get, console.ResourcesPath, nil, "", "")
		r.answers(200, get, console.ResourcesPath, nil, "format=json&site=here&site=there", "")
		r.answers(200, get, console.ResourcesPath, nil, "format=xml&domain=", "")
		r.answers(200, get, console.ResourcesPath, nil, "at="+time.Now().UTC().Format(time.RFC3339Nano), "")
		r.answers(404, get, console.ResourcesPath, nil, "at=1999-01-01T00:00:00Z", "")
		r.answers(400, get, console.ResourcesPath, nil, "format=yaml", "")
		r.answers(200, get, console.TracePath, nil, "for=9m", "") // longer than the server gives an answer
		r.answers(400, get, console.TracePath, nil, "for=ever", "")
		r.answers(200, get, console.DescriptionPath, nil, "", "")
		if got := r.answers(200, get, console.SitesPath, nil, "", ""); !strings.Contains(got, `"state": "up"`) {
			t.Error(got)
		}

		// What was settled of agreements.
		if got := r.answers(200, get, console.UsagePath, nil, "", ""); !strings.Contains(got, `"amount": "-7.5"`) || !strings.Contains(got, `"next": "a1"`) {
			t.Error(got)
		}
		r.answers(200, get, console.UsagePath, nil, "vo=bio&before=a1&most=1000&from=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z", "")
		for _, q := range []string{"most=all", "most=0", "most=1001", "from=yesterday", "until=now", "from=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z"} {
			r.answers(400, get, console.UsagePath, nil, q, "")
		}

		// Peers come and go.
		domain := func(name string) map[string]string { return map[string]string{"domain": name} }
		const del, add = http.MethodDelete, `{"url":"` + fiu + `","domain":"fiu.example","fingerprint":"` + fingerprint + `"}`
		if got := r.answers(200, post, console.ProposalsPath, nil, "", `{"lan":true}`); !strings.Contains(got, `"static",
        "lan"`) || !strings.Contains(got, "one interface is down") {
			t.Error(got)
		}
		r.answers(400, post, console.ProposalsPath, nil, "", `{"dns":["example.org"]}`)
		r.answers(200, post, console.InspectPath, nil, "", `{"url":"`+fiu+`"}`)
		r.answers(503, post, console.InspectPath, nil, "", `{"url":"https://nobody.example/peer"}`)
		r.answers(200, post, console.PeersPath, nil, "", add)
		r.answers(409, post, console.PeersPath, nil, "", strings.ReplaceAll(add, "fiu.example\"", "ibm.example\""))
		if got := r.answers(200, get, console.PeersPath, nil, "", ""); strings.Count(got, `"domain": `) != 2 {
			t.Error(got)
		}
		r.answers(200, get, console.PeerPath, domain("ibm.example"), "", "")
		r.answers(404, get, console.PeerPath, domain("bsc.example"), "", "")
		if got := r.answers(200, get, console.PeerLedgerPath, domain("fiu.example"), "most=2", ""); strings.Count(got, `"previous"`) != 2 || !strings.Contains(got, `"unheardMs": 3000`) {
			t.Error(got)
		}
		r.answers(409, del, console.PeerPath, domain("ibm.example"), "", "")
		r.answers(200, del, console.PeerPath, domain("fiu.example"), "", "")
		r.answers(200, del, console.PeerPath, domain("fiu.example"), "now=true", "")

		// Capacity is bought and given back.
		r.answers(200, post, console.PurchasesPath, nil, "", wanted)
		r.answers(400, post, console.PurchasesPath, nil, "", `{"domain":"x/y"}`)
		r.answers(200, get, console.PurchasesPath, nil, "", "")
		r.answers(200, get, console.PurchasePath, of(known), "", "")
		r.answers(404, get, console.PurchasePath, of("nothing"), "", "")
		r.answers(200, del, console.PurchasePath, of(known), "", "")
		r.answers(409, del, console.PurchasePath, of("over"), "", "")

		// The site is out, a job is given up, and then all of them.
		r.answers(409, post, console.AbandonPath, of(hangs), "", "")
		r.answers(409, post, console.FencePath, site("there"), "", `{}`)
		r.there.Down("the hall burns")
		time.Sleep(5 * time.Minute)
		if got := r.answers(200, get, console.SitesPath, nil, "", ""); !strings.Contains(got, `"state": "down"`) {
			t.Error(got)
		}
		r.answers(200, post, console.AbandonPath, of(hangs), "", "")
		r.answers(404, post, console.AbandonPath, of(known), "", "")
		r.answers(404, post, console.FencePath, site("nowhere"), "", `{"reason":"sold"}`)
		r.answers(400, post, console.FencePath, site("there"), "", `{"because":"sold"}`)
		died := time.Now().UTC().Format(time.RFC3339)
		if got := r.answers(200, post, console.FencePath, site("there"), "", `{"reason":"burnt down","died":"`+died+`"}`); strings.Contains(got, `"jobs": 0`) {
			t.Errorf("nothing was given up: %s", got)
		}
		if got := r.answers(200, get, console.SitesPath, nil, "", ""); !strings.Contains(got, `"state": "fenced"`) {
			t.Error(got)
		}
		r.answers(409, http.MethodDelete, console.FencePath, site("there"), "", "")
		r.answers(404, http.MethodDelete, console.FencePath, site("nowhere"), "", "")
		if got := r.answers(200, get, console.LimitsPath, nil, "", ""); !strings.Contains(got, `"max": 2,
      "used": 0`) {
			t.Errorf("what was given up counts: %s", got)
		}
		if err := r.DrainSite("there"); err != nil { // it leaves the configuration
			t.Fatal(err)
		}
		synctest.Wait()
		r.answers(200, http.MethodDelete, console.FencePath, site("there"), "", "")
		if got := r.answers(200, get, console.SitesPath, nil, "", ""); strings.Contains(got, `"state": "fenced"`) {
			t.Error(got)
		}
		r.complete()
	})
}

// complete finds the routes, the description and what was asked to be the same.
func (r *running) complete() {
	routes, err := console.Routes(r.api)
	if err != nil {
		r.Fatal(err)
	}
	routed, described := map[string]bool{}, map[string]bool{}
	for path, methods := range routes {
		for _, m := range methods {
			routed[m+" "+path] = true
		}
		// Whatever else is asked there is refused, with what may be.
		url := strings.NewReplacer("{id}", known, "{site}", "here", "{domain}", "ibm.example").Replace(path)
		code, body, header := r.send(http.MethodPatch, url, "")
		if code != http.StatusMethodNotAllowed || header.Get("Allow") == "" {
			r.Errorf("PATCH %s: %d, %q", path, code, header.Get("Allow"))
		}
		r.holds("PATCH "+path, "application/json", body, media{map[string]any{"$ref": "#/components/schemas/Problem"}})
	}
	for path, methods := range r.doc.Paths {
		for method, op := range methods {
			what := strings.ToUpper(method) + " " + path
			described[what] = true
			for _, p := range op.Parameters {
				if p.In == "query" && method != "head" && !r.queries[what+" "+p.Name] {
					r.Errorf("%s is never asked with %s", what, p.Name)
				}
			}
			for mediaType := range op.Responses["200"].Content {
				if !r.given[what+" "+mediaType] {
					r.Errorf("%s never answers with %s", what, mediaType)
				}
			}
		}
	}
	list := func(m map[string]bool) string { return fmt.Sprint(slices.Sorted(maps.Keys(m))) }
	if len(routed) < 30 || !maps.Equal(routed, described) || !maps.Equal(routed, r.met) {
		r.Errorf("the router has    %s\nthe description has %s\nasked were         %s", list(routed), list(described), list(r.met))
	}
}
