package replica

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/resourcemodel"
)

var noon = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

// stand gives a replica that does not run, over a store where a site is known.
func stand(t *testing.T, now *time.Time) (*Replica, store.Store) {
	t.Helper()
	st := mem.New()
	t.Cleanup(func() { _ = st.Close() })
	sess, err := st.Join(t.Context(), "feeder")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	feeder, err := modelstore.Open(t.Context(), st, modelstore.Options{Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	static := &resourcemodel.Static{Stamp: resourcemodel.Stamp{Version: 1, Changed: noon}, Type: "fake", Shares: []resourcemodel.Share{{ID: "batch", Slots: 4, Default: true}}}
	dynamic := &resourcemodel.Dynamic{Stamp: resourcemodel.Stamp{Version: 1, Changed: noon}, Up: true, Shares: map[string]resourcemodel.ShareState{"batch": {Open: true, FreeSlots: 4}}}
	if _, err := feeder.Feed(t.Context(), sess, resourcemodel.Key{Site: "slurm"}, static, dynamic); err != nil {
		t.Fatal(err)
	}
	model, err := modelstore.Open(t.Context(), st, modelstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), Options{Name: "b", Store: st, Model: model, URL: "http://127.0.0.1:1", Promises: promises(), Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	return r, st
}

// TestOutlook: what is known of a site is believed for some minutes while somebody has it, for an hour
// while nobody does, and with what was promised since.
func TestOutlook(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	ask := func(share string) (schedule.Outlook, error) { return r.Outlook("slurm", share, 1, time.Hour, "") }
	if _, err := ask(""); !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "has told nothing of it yet") {
		t.Errorf("untold: %v", err)
	}
	if _, err := r.Outlook("pole", "", 1, time.Hour, ""); !fail.Is(err, fail.NotFound) {
		t.Errorf("of no site: %v", err)
	}
	holder := store.Record{Key: holderKey, Value: encode(presence{Instance: "x", URL: "http://127.0.0.1:2"})}
	full := schedule.Sight{Standing: schedule.Standing{
		Has: schedule.Amount{Slots: 4}, Free: schedule.Amount{Slots: 3},
		Busy: []schedule.Busy{{Amount: schedule.Amount{Slots: 1}, Until: noon.Add(time.Hour)}},
	}}
	told := seen{At: noon, SiteSight: broker.SiteSight{Usual: "batch", Shares: map[string]schedule.Sight{"batch": full}}}
	r.take([]store.Record{holder, {Key: siteKey("slurm"), Value: encode(told)}}, false)
	if o, err := ask(""); err != nil || !o.Start.Equal(noon) {
		t.Errorf("it could start at once: %+v, %v", o, err)
	}
	if _, err := ask("none"); !fail.Is(err, fail.NotFound) {
		t.Errorf("of no share: %v", err)
	}
	r.KeepRoom([]schedule.Hold{{ID: "a/0", Key: resourcemodel.Key{Site: "slurm"}, Share: "batch", Slots: 4, From: noon.Add(30 * time.Minute), Until: noon.Add(3 * time.Hour), VO: "bio", ForVO: true}})
	if o, err := ask("batch"); err != nil || !o.Start.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("it would have what is promised: %+v, %v", o, err)
	}
	if o, err := r.Outlook("slurm", "", 1, time.Hour, "bio"); err != nil || !o.Start.Equal(noon) {
		t.Errorf("it is promised to them: %+v, %v", o, err)
	}
	r.KeepRoom(nil)
	if now = noon.Add(r.o.Fresh); true {
		if _, err := ask(""); err != nil {
			t.Errorf("%v", err)
		}
	}
	now = now.Add(time.Second)
	if _, err := ask(""); !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "told of it last at 2031-03-01T12:00:00Z") {
		t.Errorf("while somebody has the site: %v", err)
	}
	r.take([]store.Record{{Key: holderKey}}, false)
	if now = noon.Add(r.o.Patience); true {
		if _, err := ask(""); err != nil {
			t.Errorf("while nobody has the site: %v", err)
		}
	}
	now = now.Add(time.Second)
	if _, err := ask(""); !fail.Is(err, fail.Unavailable) {
		t.Errorf("after its time: %v", err)
	}
	told.Problem, told.At = "it has not answered", now
	r.take([]store.Record{{Key: siteKey("slurm"), Value: encode(told)}}, false)
	if o, err := ask(""); err != nil || !o.Start.IsZero() || o.Sentence != "nobody can tell when it could start at the site slurm: it has not answered" {
		t.Errorf("it is away: %+v, %v", o, err)
	}
}

// TestHolderTells: sites are told of to replicas that are there, again when something changed or half a minute
// passed, and those that went are told of no more.
func TestHolderTells(t *testing.T) {
	st := mem.New()
	defer st.Close()
	now := noon
	sights := map[string]broker.SiteSight{"a": {Usual: "x"}, "b": {Usual: "y"}}
	var failed error
	h := NewHolder(HolderOptions{Store: st, URL: "http://here", Sights: func(int) (map[string]broker.SiteSight, error) { return sights, failed }, Now: func() time.Time { return now }})
	told := func() map[string]time.Time {
		t.Helper()
		if err := h.tell(t.Context()); err != nil {
			t.Fatal(err)
		}
		records, _, err := st.ListRecords(t.Context(), prefix, store.RecordOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.notes.take(records, false); err != nil {
			t.Fatal(err)
		}
		out := map[string]time.Time{}
		for name, s := range h.notes.sites {
			out[name] = s.At
		}
		return out
	}
	if got := told(); len(got) > 0 {
		t.Errorf("nobody asks, and told is %v", got)
	}
	if err := h.notes.take([]store.Record{{Key: replicaKey("b"), Value: encode(presence{Instance: "1"})}}, false); err != nil {
		t.Fatal(err)
	}
	failed = fail.Errorf("broker", fail.Unavailable, "", "starting")
	if got := told(); len(got) > 0 {
		t.Errorf("nothing is known, and told is %v", got)
	}
	failed = nil
	if got := told(); len(got) != 2 || !got["a"].Equal(noon) {
		t.Errorf("told is %v", got)
	}
	now = noon.Add(freshen - time.Second)
	sights["b"] = broker.SiteSight{Usual: "z"}
	if got := told(); !got["a"].Equal(noon) || !got["b"].Equal(now) {
		t.Errorf("told is %v", got)
	}
	now = noon.Add(freshen)
	delete(sights, "b")
	told()
	if err := h.notes.take([]store.Record{{Key: siteKey("b")}}, false); err != nil {
		t.Fatal(err)
	}
	if got := told(); len(got) != 1 || !got["a"].Equal(now) {
		t.Errorf("told is %v", got)
	}
}

// TestPromisesOtherwise: a replica that promises otherwise than the holder is refused, or answers nothing.
func TestPromisesOtherwise(t *testing.T) {
	now := noon
	r, st := stand(t, &now)
	other := promises()
	other.Settings.Promise = 50
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: "http://there", Promises: &other})}}, false)
	const want = "agreements.promise of this replica is not as at the gateway that has the sites (http://there): start both with the same configuration"
	if _, err := r.Permit(t.Context(), "test", broker.Submit); !fail.Is(err, fail.Unavailable) || fail.Sentence(err) != want {
		t.Errorf("%v", err)
	}
	if _, err := r.Permit(t.Context(), "test", broker.Oversee); !fail.Is(err, fail.Denied) {
		t.Errorf("%v", err)
	}
	if _, err := st.PutRecords(t.Context(), nil, store.RecordChange{Key: holderKey, Value: encode(presence{URL: "http://there", Promises: &other}), If: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), r.o); !fail.Is(err, fail.Invalid) || fail.Sentence(err) != want {
		t.Errorf("%v", err)
	}
	mine := promises()
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: "http://there", Promises: &mine})}}, false)
	if _, err := r.Permit(t.Context(), "test", broker.Submit); err != nil {
		t.Error(err)
	}
}

// TestHolderOff: a gateway that makes no agreements is there, so that what is for it is passed on; and a replica makes
// none, as nobody would keep them.
func TestHolderOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := noon
		r, st := stand(t, &now)
		if _, err := r.Permit(t.Context(), "test", broker.Submit); err != nil {
			t.Errorf("while nobody has the sites: %v", err)
		}
		h := NewHolder(HolderOptions{Store: st, URL: "http://there", Off: true})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- h.Run(ctx) }()
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		if got := r.holder(); got == nil || got.URL != "http://there" {
			t.Errorf("it is not known: %+v", got)
		}
		const want = "the gateway that has the sites (http://there) makes no agreements, and keeps none that a replica makes: end this replica, or start that gateway without agreements.off"
		if _, err := r.Permit(t.Context(), "test", broker.Submit); !fail.Is(err, fail.Unavailable) || fail.Sentence(err) != want {
			t.Errorf("%v", err)
		}
		if _, err := New(t.Context(), r.o); !fail.Is(err, fail.Invalid) || fail.Sentence(err) != want {
			t.Errorf("another that starts: %v", err)
		}
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
	})
}

// TestTwoOfAName: the one that came first ends.
func TestTwoOfAName(t *testing.T) {
	now := noon
	first, st := stand(t, &now)
	o := first.o
	o.URL = "http://127.0.0.1:3"
	second, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- first.Run(ctx) }()
	there := func(instance string) func() bool {
		return func() bool {
			records, _, err := st.ListRecords(ctx, replicaPrefix, store.RecordOptions{})
			return err == nil && len(records) == 1 && strings.Contains(string(records[0].Value), instance)
		}
	}
	eventually(t, "the first is there", there(first.instance))
	go func() { ended <- second.Run(ctx) }()
	if err := <-ended; !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), "another process, at http://127.0.0.1:3, is the replica b of the domain now") {
		t.Errorf("the first ends with: %v", err)
	}
	eventually(t, "the second is there", there(second.instance))
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the second ends with: %v", err)
	}
}

// slow is a store as seen by a process whose records are there a while after its lease is.
type slow struct{ store.Store }

func (s slow) PutRecords(ctx context.Context, sess store.Session, cs ...store.RecordChange) (int64, error) {
	pause(ctx, 500*time.Millisecond)
	return s.Store.PutRecords(ctx, sess, cs...)
}

// TestTwoOfANameAtEtcd: the one that came first ends, where the lease is taken from it before there is a word of
// who took it; and it does not take it back.
func TestTwoOfANameAtEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := noon
		first, st := stand(t, &now)
		o := first.o
		o.URL, o.Store = "http://127.0.0.1:3", slow{st}
		second, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- first.Run(ctx) }()
		time.Sleep(time.Minute)
		go func() { ended <- second.Run(ctx) }()
		time.Sleep(time.Minute)
		select {
		case err := <-ended:
			if !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), "at http://127.0.0.1:3, is the replica b") {
				t.Errorf("the first ends with: %v", err)
			}
		default:
			t.Error("both go on")
		}
		records, _, err := st.ListRecords(ctx, replicaPrefix, store.RecordOptions{})
		if err != nil || len(records) != 1 || !strings.Contains(string(records[0].Value), second.instance) {
			t.Errorf("there are %v, %v", records, err)
		}
		stop()
		<-ended
		synctest.Wait()
	})
}

const (
	ask11 = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><x xmlns="urn:x"/></s:Body></s:Envelope>`
	ask12 = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><x xmlns="urn:x"/></s:Body></s:Envelope>`
)

// TestProxy: a request comes to who has the sites as it was, and its answer back; where it can't, there is a
// sentence in the way that was asked.
func TestProxy(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	here := httptest.NewServer(r.Proxy())
	defer here.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(method, path, kind, body string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, here.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header, string(b)
	}
	at := func(url string) {
		if url == "" {
			r.take([]store.Record{{Key: holderKey}}, false)
			return
		}
		r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: url})}}, false)
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + dead.Addr().String()
	_ = dead.Close()
	for where, why := range map[string]string{"": "is not there now", r.o.URL: "is not there now", "nowhere": "says nothing of where it is", nobody: "does not answer"} {
		at(where)
		for kind, fault := range map[string]string{"text/xml": "<faultstring", "application/soap+xml": "Reason", "": "gateway that has the sites"} {
			method, body := http.MethodPost, ask11
			if kind == "application/soap+xml" {
				body = ask12
			}
			if kind == "" {
				method, body = http.MethodGet, ""
			}
			status, h, got := send(method, "/bes", kind, body)
			if status != http.StatusServiceUnavailable || h.Get("Retry-After") != "5" || !strings.Contains(got, why) || !strings.Contains(got, fault) {
				t.Errorf("%q, %s: %d, %v, %s", where, kind, status, h, got)
			}
		}
	}
	at(nobody)
	big := httptest.NewRequest(http.MethodPost, "/bes", strings.NewReader(strings.Repeat(" ", 9<<20)))
	big.Header.Set("Content-Type", "text/xml")
	answer := httptest.NewRecorder()
	if r.Proxy().ServeHTTP(answer, big); answer.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a message of 9 MiB is answered with %d", answer.Code)
	}

	var asked *http.Request
	var body string
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		asked, body = req, string(b)
		if req.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Mark", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "answer")
	}))
	defer there.Close()
	at(there.URL)
	status, h, got := send(http.MethodPost, "/bes/a/1?x=y", "text/xml; charset=utf-8", ask11)
	if status != http.StatusTeapot || h.Get("X-Mark") != "yes" || got != "answer" {
		t.Errorf("%d, %v, %s", status, h, got)
	}
	if asked.URL.String() != "/bes/a/1?x=y" || body != ask11 || asked.Host != strings.TrimPrefix(here.URL, "http://") || asked.Header.Get("Content-Type") != "text/xml; charset=utf-8" {
		t.Errorf("asked is %s at %s, %v: %s", asked.URL, asked.Host, asked.Header, body)
	}
	// What broke off may have been done.
	if status, h, got := send(http.MethodPost, "/broken", "text/xml", ask11); status != http.StatusBadGateway || h.Get("Retry-After") != "" || !strings.Contains(got, "may have done what was asked") {
		t.Errorf("%d, %v, %s", status, h, got)
	}
	r.http.CloseIdleConnections()
}

// late is a body that stops in the middle.
type late struct{}

func (late) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// TestProxyBounds: requests that are passed on hold no connection for ever, and no more memory than there is.
func TestProxyBounds(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	r.intake = soap.NewIntake(1000)
	asked, gone := make(chan struct{}, 1), make(chan struct{})
	there := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err == nil {
			asked <- struct{}{}
			<-gone
		}
	}))
	defer there.Close()
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: there.URL})}}, false)
	send := func(method, kind string, body io.Reader) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), method, "/bes", body)
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		r.Proxy().ServeHTTP(w, req)
		return w
	}
	if w := send(http.MethodPost, "text/xml", late{}); w.Code != http.StatusRequestTimeout {
		t.Errorf("a slow message: %d %s", w.Code, w.Body)
	}
	if w := send(http.MethodPut, "application/json", late{}); w.Code != http.StatusRequestTimeout {
		t.Errorf("what is no message, and slow: %d %s", w.Code, w.Body)
	}
	first := make(chan int, 1)
	go func() { first <- send(http.MethodPost, "text/xml", strings.NewReader(strings.Repeat("x", 990))).Code }()
	<-asked
	beside := func(what string) {
		if w := send(http.MethodPost, "text/xml", strings.NewReader(ask11)); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "<faultstring>too many messages") {
			t.Errorf("%s: %d %v %s", what, w.Code, w.Header(), w.Body)
		}
	}
	beside("beside it")
	r.take([]store.Record{{Key: holderKey}}, false)
	beside("where nobody has the sites")
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: there.URL})}}, false)
	close(gone)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
	if w := send(http.MethodPost, "text/xml", strings.NewReader(ask11)); w.Code != http.StatusOK {
		t.Errorf("after it: %d %s", w.Code, w.Body)
	}
	r.http.CloseIdleConnections()
}

// renewed counts how often an answer was given time.
type renewed struct {
	*httptest.ResponseRecorder
	until []time.Time
}

func (r *renewed) SetWriteDeadline(t time.Time) error {
	r.until = append(r.until, t)
	return nil
}

// TestProxyLasts: an answer that goes on for longer than the server gives one has time for each of its parts.
func TestProxyLasts(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/short" {
			_, _ = io.WriteString(w, "all of it")
			return
		}
		for range 3 {
			_, _ = io.WriteString(w, "a part\n")
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer there.Close()
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: there.URL})}}, false)
	for path, lasts := range map[string]bool{"/short": false, "/long": true} {
		w := &renewed{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		r.Proxy().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != http.StatusOK || len(w.until) > 0 != lasts || lasts && !w.Flushed {
			t.Errorf("%s: %d, %v", path, w.Code, w.until)
		}
		for _, until := range w.until {
			if until.Before(began.Add(partTime)) || until.After(time.Now().Add(partTime)) {
				t.Errorf("%s: a part has until %s", path, until)
			}
		}
	}
	r.http.CloseIdleConnections()
}

// TestStopsWhileAsking: who waits for an answer when a replica ends gets one that says that it may have been done.
func TestStopsWhileAsking(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	asked, gone := make(chan struct{}, 2), make(chan struct{})
	there := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		asked <- struct{}{}
		<-gone
	}))
	defer there.Close()
	defer close(gone)
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: there.URL})}}, false)
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		ctx, stop := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, method, "/bes", strings.NewReader(ask12))
		req.Header.Set("Content-Type", "application/soap+xml")
		w, done := httptest.NewRecorder(), make(chan struct{})
		go func() { defer close(done); r.Proxy().ServeHTTP(w, req) }()
		<-asked
		stop()
		<-done
		if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "may have done what was asked") {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
	r.http.CloseIdleConnections()
}

// TestPassedOn: what turns out not to be for here goes on whole, and nothing of what was about to be answered
// comes out.
func TestPassedOn(t *testing.T) {
	now := noon
	r, _ := stand(t, &now)
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(w, req.Body)
	}))
	defer there.Close()
	local := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if strings.Contains(string(b), "job") {
			err := r.Admissible(req.Context(), nil, nil)
			if !fail.Is(err, fail.Unavailable) {
				t.Errorf("%v", err)
			}
			if passed := errors.Is(context.Cause(req.Context()), errPassedOn); passed != (r.holder() != nil) {
				t.Errorf("what is under way here is stopped: %v", passed)
			}
		}
		w.Header().Set("X-Mark", "here")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "here")
	})
	h := r.Agreements(local)
	send := func(method, body string) (int, string, string) {
		req := httptest.NewRequest(method, "/agreement", strings.NewReader(body))
		req.Header.Set("Content-Type", "text/xml")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w.Code, w.Header().Get("X-Mark"), w.Body.String()
	}
	long := "a job of " + strings.Repeat("x", 1<<20)
	if code, mark, got := send(http.MethodPost, long); code != http.StatusAccepted || mark != "here" || got != "here" {
		t.Errorf("without a holder: %d %s %.100s", code, mark, got)
	}
	r.take([]store.Record{{Key: holderKey, Value: encode(presence{Instance: "x", URL: there.URL})}}, false)
	if code, mark, got := send(http.MethodPost, long); code != http.StatusOK || mark != "" || got != long {
		t.Errorf("with a job: %d %s %.100s", code, mark, got)
	}
	if code, mark, got := send(http.MethodPost, "capacity"); code != http.StatusAccepted || mark != "here" || got != "here" {
		t.Errorf("without a job: %d %s %.100s", code, mark, got)
	}
	if code, mark, got := send(http.MethodGet, ""); code != http.StatusAccepted || mark != "here" || got != "here" {
		t.Errorf("what is no message: %d %s %.100s", code, mark, got)
	}
	r.http.CloseIdleConnections()
}
