package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get PATH CODE")
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, ts.Getenv("BASE")+args[0], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if want, _ := strconv.Atoi(args[1]); resp.StatusCode != want {
		ts.Fatalf("status %d, not %s: %s", resp.StatusCode, args[1], body)
	}
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
}

func TestWebPagesOfElsewhereAreRefused(t *testing.T) {
	h := fromHere(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for origin, want := range map[string]int{
		"":                        http.StatusOK,
		"http://127.0.0.1:8700":   http.StatusOK,
		"http://localhost:3000":   http.StatusOK,
		"https://evil.example":    http.StatusForbidden,
		"null":                    http.StatusForbidden,
		"http://127.0.0.1.evil.x": http.StatusForbidden,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/bes", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Origin %q: %d, not %d", origin, w.Code, want)
		}
	}
}
