package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestTogether: gateways of three domains, which are processes and talk over TLS. What is offered to two of
// them as one is agreed on by both or by none, whoever is killed meanwhile.
func TestTogether(t *testing.T) {
	u := newUnion(t)
	home, north, south := u.add("home", 2, false), u.add("north", 2, false), u.add("south", 2, false)
	home.agreeing, north.agreeing, south.agreeing = true, true, true
	u.knows("", [2]*domain{home, north}, [2]*domain{home, south})
	begin(t, home, north, south)
	c := &coallocation{t: t, u: u, home: home}

	t.Run("jobs of the user", func(t *testing.T) {
		c.t = t
		x := c.ask(newID(t), time.Time{}, c.part(north, "finish-by", time.Time{}), c.part(home, "finish-by", time.Time{}))
		if x.err != nil || x.State != "committed" {
			t.Fatalf("%+v", x)
		}
		c.until(x.ID, "both jobs have run", func(g *agreement.Together) bool {
			return !slices.ContainsFunc(g.Parts, func(p agreement.TogetherPart) bool {
				return p.Agreement == nil || p.Agreement.State != agreement.Complete
			})
		})
		for _, p := range c.show(x.ID).Parts {
			story := promised{p.Agreement}.story()
			if len(p.Agreement.Services) == 0 || !strings.Contains(string(xmldoc.Marshal(p.Agreement.Encode())), ">Finished<") {
				t.Errorf("the job at %s did not end well: %s", p.Domain, story)
			}
		}
	})

	window := time.Now().Add(3 * time.Hour).Truncate(time.Minute)
	t.Run("both or none", func(t *testing.T) {
		c.t = t
		both := c.ask(newID(t), time.Time{}, c.part(north, "capacity", window), c.part(south, "capacity", window))
		if both.err != nil || both.State != "committed" {
			t.Fatalf("%+v", both)
		}
		c.all(both.ID, agreement.Observed)
		alone := c.ask(newID(t), time.Time{}, c.part(north, "capacity", window.Add(6*time.Hour)))
		if alone.err != nil {
			t.Fatal(alone.err)
		}
		none := c.ask(newID(t), time.Time{}, c.part(south, "capacity", window.Add(6*time.Hour)), c.part(north, "capacity", window.Add(6*time.Hour)))
		if none.err == nil || !strings.Contains(fail.Sentence(none.err), "north.example refuses") || strings.Contains(fail.Sentence(none.err), "south.example refuses") {
			t.Errorf("north has no room: %v", none.err)
		}
		again := c.ask(newID(t), time.Time{}, c.part(south, "capacity", window.Add(6*time.Hour)))
		if again.err != nil {
			t.Errorf("something is held at south for what north refused: %v", again.err)
		}
		for _, x := range []asked{both, alone, again} {
			c.end(x.ID)
		}
		if _, err := home.agreements().Together(t.Context(), newID(t)); !fail.Is(err, fail.NotFound) {
			t.Errorf("of what never was: %v", err)
		}
		unknown := c.part(south, "capacity", window)
		unknown.Domain = "nowhere.example"
		if x := c.ask(newID(t), time.Time{}, unknown); !fail.Is(x.err, fail.NotFound) || !strings.Contains(fail.Sentence(x.err), "nowhere.example") {
			t.Errorf("at a domain that is no peer: %v", x.err)
		}
	})

	t.Run("killed", func(t *testing.T) {
		c.t = t
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		dice := rand.New(rand.NewPCG(seed, 1))
		rounds, outcomes := 6, map[string]int{}
		if testing.Short() {
			rounds = 3
		}
		for n := range rounds {
			at := window.Add(time.Duration(n%2) * 6 * time.Hour)
			parts := []agreement.TogetherOffer{c.part(north, "capacity", at), c.part(south, "capacity", at)}
			victims := [][]*domain{{home}, {north}, {south}, {home, north}}[dice.IntN(4)]
			id, ctx := newID(t), t.Context()
			client, deadline := home.agreements(), time.Now().Add(15*time.Second)
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				_, _ = client.CreateTogether(ctx, &agreement.TogetherRequest{ID: id, Deadline: deadline, Parts: parts}) // it is asked again
			}()
			time.Sleep(time.Duration(dice.IntN(250)) * time.Millisecond) // of processes, whose time nobody holds
			end(victims...)
			begin(t, victims...)
			<-asked
			x := c.ask(id, deadline, parts...)
			if x.err != nil && (fail.Is(x.err, fail.Unavailable) || fail.Is(x.err, fail.Uncertain)) {
				t.Fatalf("round %d: no outcome: %v", n, x.err)
			}
			g, err := home.agreements().Together(ctx, id)
			switch {
			case fail.Is(err, fail.NotFound): // the deadline had passed before it began
				outcomes["never begun"]++
			case err != nil:
				t.Fatal(err)
			default:
				outcomes[g.State]++
				switch g.State {
				case "committed":
					c.all(id, agreement.Observed)
					c.end(id)
				case "aborted", "rolled back":
					for _, p := range g.Parts {
						if p.Agreement != nil && !p.Agreement.State.Final() {
							t.Errorf("round %d: nothing was agreed on, and at %s it is %s", n, p.Domain, p.Agreement.State)
						}
					}
				default:
					t.Errorf("round %d: it is %s", n, g.State)
				}
			}
			// Whatever it was, all of the room is there again.
			c.end(c.must(at, north, south))
		}
		t.Logf("%v", outcomes)
	})
}

func newID(t *testing.T) string {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// coallocation asks the home gateway for agreements together.
type coallocation struct {
	t    *testing.T
	u    *union
	home *domain
}

type asked struct {
	agreement.Together
	err error
}

// part makes an offer by a template of a domain, of a kind; from is when its window begins.
func (c *coallocation) part(d *domain, kind string, from time.Time) agreement.TogetherOffer {
	c.t.Helper()
	var found *agreement.Template
	c.u.until("a template "+kind+" of "+d.name, func() error {
		list, err := c.home.agreements().TemplatesOf(c.t.Context(), d.domain(), "")
		if err != nil {
			return err
		}
		var names []string
		for i := range list {
			names = append(names, list[i].Name)
			if strings.HasPrefix(list[i].Name, kind+"@") {
				found = &list[i]
				return nil
			}
		}
		return fmt.Errorf("there are %q", names)
	})
	o := agreement.Offer{Agreement: found.Agreement}
	parsed, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range parsed.Terms.Terms {
		s, ok := x.(*agreement.ServiceDescription)
		if !ok || s.Description.Tag != "Capacity" {
			continue
		}
		for local, text := range map[string]string{"CPUs": "2", "StartTime": stampOf(from), "EndTime": stampOf(from.Add(time.Hour))} { // all that is promised
			e := xmldoc.Child(s.Description, agreement.NSPortolan, local)
			if e == nil {
				c.t.Fatalf("the template of capacity has no %s", local)
			}
			e.SetText(text)
		}
	}
	parsed.Element = nil
	return agreement.TogetherOffer{Domain: d.domain(), Offer: *parsed}
}

// ask asks until there is an outcome; a gateway that was killed is asked again.
func (c *coallocation) ask(id string, deadline time.Time, parts ...agreement.TogetherOffer) (x asked) {
	c.t.Helper()
	ctx, stop := context.WithTimeout(c.t.Context(), patience)
	defer stop()
	for {
		g, err := c.home.agreements().CreateTogether(ctx, &agreement.TogetherRequest{ID: id, Deadline: deadline, Parts: parts})
		if x.err = err; err == nil {
			x.Together = *g
		}
		if err == nil || ctx.Err() != nil || !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain) {
			return x
		}
		pause(ctx, 200*time.Millisecond)
	}
}

func (c *coallocation) show(id string) *agreement.Together {
	c.t.Helper()
	g, err := c.home.agreements().Together(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

func (c *coallocation) until(id, what string, is func(*agreement.Together) bool) {
	c.t.Helper()
	c.u.until(what, func() error {
		g, err := c.home.agreements().Together(c.t.Context(), id)
		if err != nil || is(g) {
			return err
		}
		return fmt.Errorf("it is %+v", g)
	})
}

// all checks that all parts are in a state.
func (c *coallocation) all(id string, state agreement.State) {
	c.t.Helper()
	c.until(id, "all parts to be "+string(state), func(g *agreement.Together) bool {
		return !slices.ContainsFunc(g.Parts, func(p agreement.TogetherPart) bool { return p.Agreement == nil || p.Agreement.State != state })
	})
}

// end ends what was agreed on.
func (c *coallocation) end(id string) {
	c.t.Helper()
	c.u.until("the end of "+id, func() error { return c.home.agreements().TerminateTogether(c.t.Context(), id, nil) })
	c.until(id, "all parts to end", func(g *agreement.Together) bool {
		return g.State == "dissolved" && !slices.ContainsFunc(g.Parts, func(p agreement.TogetherPart) bool { return p.Agreement == nil || !p.Agreement.State.Final() })
	})
}

// must agrees on the capacity of domains from a time on.
func (c *coallocation) must(from time.Time, ds ...*domain) string {
	c.t.Helper()
	id := ""
	c.u.until("all of the room", func() error {
		var parts []agreement.TogetherOffer
		for _, d := range ds {
			parts = append(parts, c.part(d, "capacity", from))
		}
		id = newID(c.t)
		return c.ask(id, time.Time{}, parts...).err
	})
	return id
}
