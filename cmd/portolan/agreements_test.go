package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/replica"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func agreementOf(ts *testscript.TestScript) *agreement.Client {
	url := ts.Getenv("AGREEMENT")
	if url == "" {
		ts.Fatalf("the gateway serves no agreements")
	}
	return agreement.NewClient(&soap.Client{URL: url, Addressing: true})
}

// agree makes an offer of a template as it is.
func agree(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: agree NAME [EPR]")
	}
	c := agreementOf(ts)
	var offer *agreement.Offer
	var names []string
	for end := time.Now().Add(patient); offer == nil; time.Sleep(100 * time.Millisecond) { // until the sites have told what they have
		list, err := c.Templates(context.Background())
		ts.Check(err)
		names = nil
		for i := range list {
			if names = append(names, list[i].Name); list[i].Name == args[0] {
				offer = &agreement.Offer{Agreement: list[i].Agreement}
			}
		}
		if offer == nil && time.Now().After(end) {
			ts.Fatalf("there is no template %s among %q", args[0], names)
		}
	}
	req := &agreement.CreateRequest{Offer: *offer}
	create := c.Create
	if len(args) == 2 {
		req.AcceptanceEPR = new(agreement.NewEPR(args[1], "mine"))
		create = c.CreatePending
	}
	key, err := create(context.Background(), req)
	if err != nil {
		if !neg {
			ts.Fatalf("%v", err)
		}
		_, _ = ts.Stdout().Write([]byte(sentence(err) + "\n"))
		return
	}
	if neg {
		ts.Fatalf("it was accepted")
	}
	ts.Setenv("KEY", key)
}

// agreed waits until what an agreement says of itself matches.
func agreed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: agreed KEY RE")
	}
	c, re := agreementOf(ts), regexp.MustCompile(args[1])
	said := ""
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		p, err := c.Agreement(context.Background(), args[0])
		ts.Check(err)
		if said = string(xmldoc.Marshal(p.Encode())); re.MatchString(said) {
			return
		}
	}
	ts.Fatalf("it does not match, and is\n%s", said)
}

func TestAgreementsConfig(t *testing.T) {
	dir := t.TempDir()
	for name, s := range map[string]string{
		"odd.xml": `<wsag:Template xmlns:wsag="` + agreement.NS + `" wsag:TemplateId="1"><wsag:Name>finish-by</wsag:Name></wsag:Template>`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const sites = "sites:\n  - name: shell\n    type: shell\n"
	for _, c := range []struct{ section, say string }{
		{"agreements: {}", ""},
		{"agreements: {off: true}", ""},
		{"agreements: {promise: 60, horizon: 240h, notice: 5m, maxWindow: 24h, grace: 1m, kinds: [finish-by], penalty: 2.5, availability: 0.9, unit: euro, budgets: {bio: 1000.125}, callbacks: [a.example, \"*.b.example\", 10.0.0.0/8, loopback]}", ""},
		{"agreements: {promise: 101}", "promise is 101%"},
		{"agreements: {horizon: 1m}", "horizon is 1m0s"},
		{"agreements: {horizon: 2h, maxWindow: 3h}", "window is 3h0m0s"},
		{"agreements: {kinds: [gold]}", `kinds names "gold"`},
		{"agreements: {penalty: -1}", "penalty"},
		{"agreements: {penalty: 0.0001}", "three decimals"},
		{"agreements: {budgets: {bio: -1}}", "budgets.bio: -1 is negative"},
		{"agreements: {budgets: {bio: 1e300}}", "is more than"},
		{"agreements: {budgets: {bio: {amount: 1000, period: month}, chem: {amount: 0.5, period: week}, phys: {amount: 7, period: day}, all: {amount: 9}}}", ""},
		{"agreements: {budgets: {bio: {amount: 1000, period: year}}}", `budgets.bio.period: "year" is none; write day, week or month`},
		{"agreements: {budgets: {bio: {amount: -1, period: day}}}", "budgets.bio: -1 is negative"},
		{"agreements: {budgets: {bio: {period: month}}}", "a budget needs an amount"},
		{"agreements: {budgets: {bio: {amount: 1, each: month}}}", "each"},
		{"agreements: {budgets: {bio: much}}", "much"},
		{"agreements: {callbacks: [\"http://x/\"]}", "callbacks"},
		{"agreements: {templates: here}", "no absolute path"},
		{"agreements: {templates: /nowhere/at/all}", "can't be read"},
		{"agreements: {templates: " + dir + "}", "odd.xml:1"},
		{"agreements: {promised: 1}", "promised"},
	} {
		_, err := parseConfig("f", []byte(sites+c.section+"\n"))
		switch {
		case c.say == "" && err != nil:
			t.Errorf("%s: %v", c.section, err)
		case c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)):
			t.Errorf("%s: %v does not say %q", c.section, err, c.say)
		}
	}
	if a, b := (*agreementsConfig)(nil), (&agreementsConfig{}); !alikeAgreements(a, b) || alikeAgreements(a, &agreementsConfig{Off: true}) {
		t.Error("nothing said and an empty section are the same, and off is not")
	}
}

// What processes of a domain must promise alike is told of whole, and what is said otherwise and means the same is
// the same.
func TestPromisesOfAConfiguration(t *testing.T) {
	told := func(c agreementsConfig) replica.Promises {
		p, err := c.promises()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		a, b agreementsConfig
		same bool
	}{
		"nothing":                 {agreementsConfig{}, agreementsConfig{}, true},
		"the usual callbacks":     {agreementsConfig{}, agreementsConfig{Callbacks: []string{"loopback"}}, true},
		"no callbacks":            {agreementsConfig{}, agreementsConfig{Callbacks: []string{}}, false},
		"their order":             {agreementsConfig{Callbacks: []string{"a.example", "b.example"}}, agreementsConfig{Callbacks: []string{"b.example", "a.example"}}, true},
		"an amount":               {agreementsConfig{Budgets: map[string]budgetConfig{"bio": {Amount: 1}}}, agreementsConfig{Budgets: map[string]budgetConfig{"bio": {Amount: 1.001}}}, false},
		"a period":                {agreementsConfig{Budgets: map[string]budgetConfig{"bio": {Amount: 1}}}, agreementsConfig{Budgets: map[string]budgetConfig{"bio": {Amount: 1, Period: "day"}}}, false},
		"what is promised anyway": {agreementsConfig{}, agreementsConfig{Promise: 80}, true},
	} {
		if same := reflect.DeepEqual(told(c.a), told(c.b)); same != c.same {
			t.Errorf("%s: they are the same: %v", name, same)
		}
	}
}
