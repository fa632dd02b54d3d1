package agreement_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

const address = "http://gateway.example/agreement"

// wire carries messages to a handler without a socket, and keeps them.
type wire struct {
	h        http.Handler
	mu       sync.Mutex
	requests [][]byte
	answers  [][]byte
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	if r.Body != nil {
		if _, err := sent.ReadFrom(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	in := httptest.NewRequest(r.Method, r.URL.String(), bytes.NewReader(sent.Bytes()))
	in.Header = r.Header
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, in.WithContext(r.Context()))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, bytes.Clone(sent.Bytes()))
	w.answers = append(w.answers, bytes.Clone(rec.Body.Bytes()))
	return rec.Result(), nil
}

func onTheWire(svc agreement.Service, v soap.Version) (*agreement.Client, *wire) {
	w := &wire{h: agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})}
	return agreement.NewClient(&soap.Client{URL: address, Version: v, Addressing: v == soap.V12, Transport: w, Retries: -1}), w
}

func TestServiceInMemory(t *testing.T) {
	agreementtest.Run(t, func() agreement.Service { return &agreementtest.Service{} })
}

func TestServiceOnTheWire(t *testing.T) {
	for _, v := range []soap.Version{soap.V11, soap.V12} {
		t.Run(v.String(), func(t *testing.T) {
			agreementtest.Run(t, func() agreement.Service {
				c, _ := onTheWire(&agreementtest.Service{}, v)
				return c
			})
		})
	}
}

// TestServiceTwiceOnTheWire: what a client makes of the wire can be put on the wire
// again.
func TestServiceTwiceOnTheWire(t *testing.T) {
	agreementtest.Run(t, func() agreement.Service {
		c, _ := onTheWire(&agreementtest.Service{}, soap.V11)
		c, _ = onTheWire(c, soap.V12)
		return c
	})
}

func TestEarliestCrossesTheWire(t *testing.T) {
	c, _ := onTheWire(&agreementtest.Service{Capacity: 1}, soap.V11)
	req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}
	if _, err := c.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	_, err := c.Create(t.Context(), req)
	r, ok := errors.AsType[*agreement.Refusal](err)
	if !ok || r.Code != agreement.NoCapacity || !r.Earliest.Equal(agreementtest.Earliest) {
		t.Fatalf("%v", err)
	}
}

// refusing gives one error to whoever offers.
type refusing struct {
	agreementtest.Service
	err error
}

func (s *refusing) Create(context.Context, *agreement.CreateRequest) (string, error) {
	return "", s.err
}

// TestRefusalsAreLogged as what they are: nothing failed where there is no room, or what was asked for is not
// allowed.
func TestRefusalsAreLogged(t *testing.T) {
	kinds := []fail.Kind{fail.Invalid, fail.Unsupported, fail.Denied, fail.NotFound, fail.Conflict, fail.NotAccepting, fail.Exhausted}
	failures := []fail.Kind{fail.Internal, fail.Uncertain}
	say := func(err error) string {
		var log bytes.Buffer
		w := &wire{h: agreement.NewServer(&refusing{err: err}, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Log: slog.New(slog.NewTextHandler(&log, nil))})}
		c := agreement.NewClient(&soap.Client{URL: address, Transport: w, Retries: -1})
		if _, err := c.Create(t.Context(), &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}); err == nil {
			t.Fatal("it is accepted")
		}
		return log.String()
	}
	for _, k := range kinds {
		if log := say(fail.Errorf("x", k, "", "a sentence")); !strings.Contains(log, "level=INFO") || strings.Contains(log, "level=ERROR") || !strings.Contains(log, "a sentence") {
			t.Errorf("%s: %s", k, log)
		}
	}
	if log := say(agreement.Refuse(agreement.NoCapacity, "no room")); !strings.Contains(log, "level=INFO") || strings.Contains(log, "level=ERROR") {
		t.Errorf("no room: %s", log)
	}
	for _, k := range failures {
		if log := say(fail.Errorf("x", k, "", "a sentence")); !strings.Contains(log, "level=ERROR") {
			t.Errorf("%s: %s", k, log)
		}
	}
}
