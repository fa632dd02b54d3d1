package bes_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
)

// nothing is a Service whose answers cost nothing.
type nothing struct{ *bestest.Service }

func (nothing) CreateActivity(context.Context, *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	return &bes.CreateActivityResponse{Activity: bes.NewEPR(address, "0190a4f0-7c7e-7000-8000-000000000001")}, nil
}

// BenchmarkCreate is the way of one submission through SOAP, BES and JSDL.
func BenchmarkCreate(b *testing.B) {
	h := bes.NewServer(nothing{&bestest.Service{}}, bes.ServerOptions{Verifier: soap.DevVerifier{}})
	message := envelope(`<bf:CreateActivity` + ns + `><bf:ActivityDocument>` + job + `</bf:ActivityDocument></bf:CreateActivity>`)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(message))
		r.Header.Set("Content-Type", "text/xml")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			b.Fatal(rec.Body.String())
		}
	}
}

// BenchmarkStatuses asks for a hundred activities at once.
func BenchmarkStatuses(b *testing.B) {
	svc := &bestest.Service{BaseURL: address}
	h := bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}})
	r, err := svc.CreateActivity(soap.WithPrincipal(b.Context(), soap.Principal{Name: "anonymous"}), &bes.CreateActivityRequest{Document: []byte(job)})
	if err != nil {
		b.Fatal(err)
	}
	message := envelope(`<bf:GetActivityStatuses` + ns + `>` + strings.Repeat(`<bf:ActivityIdentifier><a:Address>`+r.Activity.Address+`</a:Address></bf:ActivityIdentifier>`, 100) + `</bf:GetActivityStatuses>`)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(message))
		r.Header.Set("Content-Type", "text/xml")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK {
			b.Fatal(rec.Body.String())
		}
	}
}
