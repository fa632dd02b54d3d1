package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// Service is the service's name in the DNS and in DNS-SD (RFC 6763 §7).
const Service = "_portolan-peer._tcp"

// Resolver asks the DNS: a *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Bounds of the answers for one domain.
const (
	maxSRV = 16
	maxTXT = 16
)

// lookUp finds the gateways that a domain of the DNS names: the SRV records of
// _portolan-peer._tcp.DOMAIN say where, the TXT records of the same name the rest, for all
// of them.
func lookUp(ctx context.Context, r Resolver, name string) (*Found, error) {
	name = strings.TrimSuffix(name, ".")
	_, records, err := r.LookupSRV(ctx, "portolan-peer", "tcp", name+".")
	out := &Found{}
	if err != nil {
		// net gives what it could use along with the names that it could not.
		if len(records) == 0 {
			return nil, unresolved(name, "SRV", err)
		}
		out.Remarks = append(out.Remarks, fmt.Sprintf("some SRV records of %s have names that are none", name))
	}
	if len(records) == 1 && (records[0].Target == "." || records[0].Target == "") { // RFC 2782: decidedly not available
		return nil, fail.Errorf("discovery.DNS", fail.NotFound, name, "%s says that it has no peer gateway", name)
	}
	if len(records) > maxSRV {
		out.Remarks = append(out.Remarks, fmt.Sprintf("%s has %d SRV records; the first %d are used", name, len(records), maxSRV))
		records = records[:maxSRV]
	}
	texts, err := r.LookupTXT(ctx, Service+"."+name+".")
	if err != nil && !nothing(err) {
		return out, unresolved(name, "TXT", err)
	}
	if len(texts) > maxTXT {
		texts = texts[:maxTXT]
	}
	common, remark := readTexts(split(texts))
	if remark != "" {
		out.Remarks = append(out.Remarks, "the TXT record of "+name+": "+remark)
	}
	for _, s := range records {
		host := strings.TrimSuffix(s.Target, ".")
		if err := checkHost(host); err != nil || s.Port == 0 {
			out.Remarks = append(out.Remarks, fmt.Sprintf("an SRV record of %s names no host and port", name))
			continue
		}
		p := common.proposal(net.JoinHostPort(host, strconv.Itoa(int(s.Port))))
		if p.Domain == "" {
			p.Domain = name
		}
		p.priority, p.weight = s.Priority, s.Weight
		out.Proposals = append(out.Proposals, p)
	}
	return out, nil
}

func nothing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

func unresolved(name, kind string, err error) error {
	if nothing(err) {
		return fail.Errorf("discovery.DNS", fail.NotFound, name, "the DNS has no %s record of %s.%s: its administrator adds one, or name another domain", kind, Service, name).Because(err)
	}
	return fail.Errorf("discovery.DNS", fail.Unavailable, name, "the DNS could not be asked for the %s record of %s.%s", kind, Service, name).Because(err)
}

// checkHost gives fail.Invalid for what is no name of a host or domain in the DNS.
func checkHost(s string) error {
	s = strings.TrimSuffix(s, ".")
	ok := s != "" && len(s) <= maxName
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			ok = false
		}
	}
	if !ok {
		return fail.Errorf("discovery.DNS", fail.Invalid, "", "a domain of the DNS is letters, digits and hyphens in parts joined by dots, of at most 253 bytes")
	}
	return nil
}
