package console

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// describedBy gives the description as a client gets it.
func describedBy(t *testing.T, h http.Handler) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, DescriptionPath, nil))
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %v: %s", w.Code, err, w.Body)
	}
	return doc
}

// The description has each route of the router with each of its methods, and no other.
func TestDescriptionIsOfTheRoutes(t *testing.T) {
	a := New(nil, Options{Version: "7.1"}).(*api)
	doc := describedBy(t, a)
	if doc["openapi"] != "3.1.0" || doc["info"].(map[string]any)["version"] != "7.1" {
		t.Errorf("%v %v", doc["openapi"], doc["info"])
	}
	described := map[string]bool{}
	identifiers := map[string]bool{}
	for path, methods := range doc["paths"].(map[string]any) {
		for method, x := range methods.(map[string]any) {
			described[strings.ToUpper(method)+" "+path] = true
			d := x.(map[string]any)
			id, _ := d["operationId"].(string)
			if id == "" || identifiers[id] || d["summary"] == "" {
				t.Errorf("%s %s: operationId %q, summary %q", method, path, id, d["summary"])
			}
			identifiers[id] = true
		}
	}
	routed := map[string]bool{}
	paths, err := Routes(a)
	for path, methods := range paths {
		for _, m := range methods {
			routed[m+" "+path] = true
		}
	}
	if err != nil || len(routed) < 18 || !reflect.DeepEqual(routed, described) {
		t.Errorf("%v: the router has %v\nthe description has %v", err, routed, described)
	}
	for path := range paths {
		if !strings.HasPrefix(path, "/api/v1/") {
			t.Errorf("%s is of another version", path)
		}
	}
	if len(paths) != len(Paths()) {
		t.Errorf("the router has %d paths, and %d are mounted", len(paths), len(Paths()))
	}
	var refs func(any)
	refs = func(x any) {
		switch x := x.(type) {
		case map[string]any:
			if ref, ok := x["$ref"].(string); ok {
				name, local := strings.CutPrefix(ref, "#/components/schemas/")
				if _, there := doc["components"].(map[string]any)["schemas"].(map[string]any)[name]; !local || !there {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, v := range x {
				refs(v)
			}
		case []any:
			for _, v := range x {
				refs(v)
			}
		}
	}
	refs(doc)
}
