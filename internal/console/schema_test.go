package console_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/peers/status"
)

// judge holds a value to a schema, and to more than the schema asks: a key that the schema
// does not name is a mistake of the schema.
type judge struct {
	components map[string]any
	problems   []string
}

func (j *judge) wrong(at, format string, args ...any) {
	j.problems = append(j.problems, at+": "+fmt.Sprintf(format, args...))
}

// keywords are those that a judge knows.
var keywords = []string{
	"$ref", "anyOf", "type", "format", "enum", "minimum", "items", "properties", "additionalProperties", "required", "contentEncoding", "description",
}

func (j *judge) value(at string, v any, schema map[string]any) {
	for k := range schema {
		if !slices.Contains(keywords, k) {
			j.wrong(at, "nobody judges the keyword %s", k)
		}
	}
	if ref, ok := schema["$ref"].(string); ok {
		next, _ := j.components[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any)
		j.value(at, v, next)
		return
	}
	if forms, ok := schema["anyOf"].([]any); ok {
		for _, s := range forms {
			k := judge{components: j.components}
			if k.value(at, v, s.(map[string]any)); len(k.problems) == 0 {
				return
			}
		}
		j.wrong(at, "%v is none of the forms that it may have", v)
		return
	}
	is := map[bool]string{true: ""}
	switch x := v.(type) {
	case nil:
		is[true] = "null"
	case bool:
		is[true] = "boolean"
	case string:
		is[true] = "string"
		var err error
		switch format := schema["format"]; format {
		case nil:
		case "date-time":
			_, err = time.Parse(time.RFC3339Nano, x)
		case "uuid":
			_, err = uuid.Parse(x)
		default:
			j.wrong(at, "nobody judges the format %v of text", format)
		}
		if err == nil && schema["contentEncoding"] == "base64" {
			_, err = base64.StdEncoding.DecodeString(x)
		}
		if err != nil {
			j.wrong(at, "%v", err)
		}
		if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
			j.wrong(at, "%q is none of %v", x, enum)
		}
	case float64:
		is[true] = "number"
		if schema["type"] == "integer" && x == float64(int64(x)) {
			is[true] = "integer"
		}
		if least, ok := schema["minimum"].(float64); ok && x < least {
			j.wrong(at, "%v is less than %v", x, least)
		}
	case []any:
		is[true] = "array"
		items, _ := schema["items"].(map[string]any)
		for i, e := range x {
			j.value(fmt.Sprintf("%s[%d]", at, i), e, items)
		}
	case map[string]any:
		is[true] = "object"
		j.object(at, x, schema)
	}
	if schema["type"] != is[true] {
		j.wrong(at, "it is %s, and the schema says %v", is[true], schema["type"])
	}
}

func (j *judge) object(at string, x, schema map[string]any) {
	names, _ := schema["properties"].(map[string]any)
	other, free := schema["additionalProperties"].(map[string]any)
	for k, v := range x {
		switch s, named := names[k].(map[string]any); {
		case named:
			j.value(at+"."+k, v, s)
		case free:
			j.value(at+"."+k, v, other)
		case names != nil:
			j.wrong(at, "the schema has no %s", k)
		}
	}
	required, _ := schema["required"].([]any)
	for _, k := range required {
		if _, ok := x[k.(string)]; !ok {
			j.wrong(at, "there is no %s, which the schema requires", k)
		}
	}
}

// removable lets go of any of its neighbours, and keeps it.
type removable struct{ *neighbours }

func (r removable) RemovePeer(ctx context.Context, d string, _ bool) (*status.Peer, error) {
	return r.Peer(ctx, d)
}

// What each operation answers is what the description says, to the last key.
func TestAnswersAreAsDescribed(t *testing.T) {
	_, said, view := gate()
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	all := []broker.SiteStatus{{
		Name: "slurm", State: broker.SiteDown, Problem: "slurmctld does not answer", Evidence: since,
		Properties: adapters.Properties{Type: "slurm", ManagerURI: "urn:slurm", Version: "22.05", Bulk: true, Requests: 5, MaxJobs: 9000},
		Health:     adapters.Health{Path: "commands", Since: since, Contact: since, Requests: 12, Offered: []adapters.Path{"commands"}, Remarks: []string{"no accounting"}},
		Resources:  &adapters.Resources{Shares: []adapters.Share{{ID: "debug", Slots: 4, MaxWallTime: time.Hour}}},
		Capacity:   &adapters.Capacity{Hosts: 2, CPUs: 4}, Jobs: map[broker.Phase]int{broker.Running: 3}, Live: 3,
	}, {Name: "gone", State: broker.SiteUnconfigured}}
	h := serve(gateway{sites: func(context.Context) ([]broker.SiteStatus, error) { return all, nil }, scheduling: scheduling{view: view, set: said}}, console.Options{
		Peers: removable{newNeighbours()}, Purchases: shop{}, Finder: finder(), Agreements: accounts{},
		Configuration: func() *console.Configuration {
			return &console.Configuration{File: "g.yaml", Read: since, Since: &since}
		},
	})
	_, body, _ := ask(t, h, http.MethodGet, console.DescriptionPath)
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody *struct {
				Content map[string]any
			}
			Responses map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{
		"put " + console.PoliciesPath: `{"scope":"gateway","kind":"selection","setting":"first-fit"}`, "put " + console.LimitsPath: `{"subject":"site:hpc","max":3}`,
		"post " + console.MatchPath: "<doc/>", "post " + console.FencePath: `{"reason":"sold","died":"2026-02-01T14:03:00Z"}`,
		"post " + console.PeersPath: `{"url":"` + fiu + `","domain":"fiu.example","fingerprint":"` + fingerprint + `"}`, "post " + console.InspectPath: `{"url":"` + fiu + `"}`,
		"post " + console.ProposalsPath: `{"lan":true,"wait":0.5}`, "post " + console.PurchasesPath: wanted,
	}
	asked := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if method == "head" {
				continue
			}
			at := strings.NewReplacer("{id}", known, "{site}", "slurm", "{domain}", "ibm.example").Replace(path)
			for mediaType, content := range op.Responses["200"].Content {
				query := ""
				if path == console.ResourcesPath && mediaType == "application/xml" {
					query = "?format=xml"
				}
				code, body, header := send(t, h, strings.ToUpper(method), at+query, bodies[method+" "+path])
				if code != http.StatusOK || header.Get("Content-Type") != mediaType {
					t.Errorf("%s %s: %d %v: %s", method, path, code, header, body)
				}
				asked++
				if mediaType != "application/json" {
					continue
				}
				var v any
				if err := json.Unmarshal([]byte(body), &v); err != nil {
					t.Errorf("%s %s: %v", method, path, err)
				}
				j := &judge{components: doc.Components.Schemas}
				j.value(method+" "+path, v, content.Schema)
				for _, p := range j.problems {
					t.Error(p)
				}
			}
			if op.RequestBody == nil && bodies[method+" "+path] != "" {
				t.Errorf("%s %s takes what is not described", method, path)
			}
			if op.RequestBody != nil && op.RequestBody.Content["application/json"] != nil {
				var v any
				if err := json.Unmarshal([]byte(bodies[method+" "+path]), &v); err != nil {
					t.Fatal(err)
				}
				j := &judge{components: doc.Components.Schemas}
				j.value("request of "+path, v, op.RequestBody.Content["application/json"].(map[string]any)["schema"].(map[string]any))
				for _, p := range j.problems {
					t.Error(p)
				}
			}
		}
	}
	if asked < 19 {
		t.Errorf("only %d answers were judged", asked)
	}
	// A refusal is a Problem.
	_, body, _ = send(t, h, http.MethodPut, console.LimitsPath, "{}")
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	j := &judge{components: doc.Components.Schemas}
	j.value("refusal", v, map[string]any{"$ref": "#/components/schemas/Problem"})
	// And the judge sees what is wrong.
	before := len(j.problems)
	j.value("refusal", map[string]any{"kind": 3.0, "more": true}, map[string]any{"$ref": "#/components/schemas/Problem"})
	if before != 0 || len(j.problems) != 3 {
		t.Errorf("%q", j.problems)
	}
}
