package xsd

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// literals are values to try, near the ends of what is allowed.
var literals = map[string][]string{
	"text": {
		"", "a", "ab", "abc", " a ", "a  b", "a\tb", "A-1", "x:y", "1a", "-", "_", "é", "a b", "en", "en-GB", "toolongsubtag-x", "http://a/b", "a:b:c", ".a", "zzzz",
		"a,b", "ab12", "[x]", "a^b", "a|b", "(a)", "a.b", "b", "aaa", "aaaa", "a\u00a0b",
	},
	"boolean": {"true", "false", "1", "0", "TRUE", "", " true ", "yes"},
	"decimal": {
		"0", "-0", "+1", "1", "1.0", "01", "1.", ".5", ".", "-1", "10", "9.99", "10.00", "10.01", "100", "-100", "1e2", "", " 7 ", "127", "128", "-128", "-129", "255", "256",
		"32767", "32768", "65535", "65536", "2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
		"18446744073709551616", "123.456", "0.001", "abc", "1 2", "--1", "INF",
	},
	"float":    {"0", "-0", "1", "1.5", "1e2", "1E-2", "100", "99.9", "INF", "-INF", "+INF", "inf", ".5", "5.", "", "-1", "1.0", " 2 ", "1e400", "x"},
	"dateTime": {"2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00", "2026-01-01T12:00:00", "2026-01-02T00:00:00Z", "2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00.000Z", "2026-02-30T00:00:00", "2026-13-01T00:00:00", "2026-01-01", "2026-01-01T25:00:00", "2026-01-01T00:00:00+15:00", "-0001-01-01T00:00:00Z", "12026-01-01T00:00:00Z", "02026-01-01T00:00:00Z", "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2026-1-1T00:00:00", "2026-01-03T00:00:00", "x", ""},
	"date":     {"2026-01-01", "2026-01-01Z", "2026-01-02", "2025-12-31+14:00", "2026-01-01-14:00", "2026-01-03", "2024-02-29", "2025-02-29", "26-01-01", "2026-01-01T00:00:00", ""},
	"time":     {"00:00:00", "12:00:00", "12:00:00Z", "13:00:00+01:00", "12:00:00.5", "23:59:59", "23:60:00", "1:00:00", "12:00", ""},
	"gYear":    {"2026", "2025", "2027", "2026Z", "-0044", "12026", "26", "02026", "x"},
	"gYearMonth": {
		"2026-01", "2025-12", "2026-13", "2026-02Z", "2027-01", "2026", "x",
	},
	"gMonthDay": {"--01-01", "--02-29", "--02-30", "--12-31", "--06-15Z", "01-01", "x"},
	"gDay":      {"---01", "---31", "---32", "---15Z", "01", "x"},
	"gMonth":    {"--01", "--12", "--13", "--06Z", "01", "x"},
	"duration": {
		"P1D", "PT24H", "PT23H", "P1M", "P30D", "P28D", "P27D", "P31D", "P32D", "P1Y", "P12M", "P365D", "P366D", "P367D", "PT1S", "PT0.5S", "PT1M", "PT60S", "-P1D", "-PT1S", "P0D", "P",
		"PT", "P1DT", "1D", "P1S", "P-1D", "P1Y2M3DT4H5M6S", "P59D", "P2M", "P62D", "P5M", "P150D", "P153D", "",
	},
	"anyURI":       {"http://a/b", "a", "", "urn:x", "a b", "http://a/b#c", "#c", "http://[::1]/", "%41", "../x", "é"},
	"QName":        {"p:a", "a", "q:a", ":a", "p:", "p:a:b", "1a", "", "p:b"},
	"hexBinary":    {"", "00", "0a", "0A", "0", "zz", "0aff", "00ff00"},
	"base64Binary": {"", "AA==", "AAA=", "AAAA", "AAAAAAAA", "A", "AA=", "A A = =", "AB=="},
}

var kinds = map[string]string{
	"string": "text", "normalizedString": "text", "token": "text", "language": "text", "Name": "text", "NCName": "text", "NMTOKEN": "text", "ID": "text", "IDREF": "text", "NMTOKENS": "text",
	"boolean": "boolean", "decimal": "decimal", "integer": "decimal", "nonPositiveInteger": "decimal", "negativeInteger": "decimal", "nonNegativeInteger": "decimal",
	"positiveInteger": "decimal", "long": "decimal", "int": "decimal", "short": "decimal", "byte": "decimal", "unsignedLong": "decimal", "unsignedInt": "decimal",
	"unsignedShort": "decimal", "unsignedByte": "decimal", "float": "float", "double": "float", "dateTime": "dateTime", "date": "date", "time": "time", "gYear": "gYear",
	"gYearMonth": "gYearMonth", "gMonthDay": "gMonthDay", "gDay": "gDay", "gMonth": "gMonth", "duration": "duration", "anyURI": "anyURI", "QName": "QName",
	"hexBinary": "hexBinary", "base64Binary": "base64Binary",
}

var forms = []string{
	"a", "a*", "[a-z]+", `\d+`, `\d{1,3}`, `[^a-z]*`, "a|b", "(ab)+", `\i\c*`, `\c+`, `.{2,3}`, ".*", `[a-z-[aeiou]]+`, `\p{L}+`, `\p{Lu}.*`, `\P{L}*`, `[\d\-]+`, `\S+`,
	`\s*\S*\s*`, `[a-]+`, `[-a]+`, `a{2}`, `a{2,}`, `a\^b`, `a^b`, `a$?`, `\[x\]`, `\(a\)`, `a\|b`, `a\.b`, `[^\s]+`, `-?\d+(\.\d+)?`, `\w+`, `[a-c]{3}`, `(a|b|c)*`, `[\i-[:]][\c-[:]]*`,
	`[A-Z]-[0-9]`, `\p{Nd}+`, `\D+`, `[^\d]+`, `é|€`, "", `(a(b(c)?)?)`, `P.*`, `\+?[0-9]+`, `2026-.*`,
}

func attribute(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#9;", "\n", "&#10;").Replace(s)
}

// build makes the facets of a constraint for a type.
func build(r *rand.Rand, typ string) string {
	pool := literals[kinds[typ]]
	of := func() string { return attribute(pool[r.IntN(len(pool))]) }
	var b strings.Builder
	facet := func(name, value string) { fmt.Fprintf(&b, `<xs:%s value="%s"/>`, name, value) }
	number := func(n int) string { return fmt.Sprint(r.IntN(n)) }
	for range 1 + r.IntN(2) {
		switch r.IntN(11) {
		case 0:
			facet("length", number(5))
		case 1:
			facet("minLength", number(4))
		case 2:
			facet("maxLength", number(6))
		case 3:
			facet("pattern", attribute(forms[r.IntN(len(forms))]))
		case 4:
			for range 1 + r.IntN(4) {
				facet("enumeration", of())
			}
		case 5:
			facet("whiteSpace", []string{"preserve", "replace", "collapse"}[r.IntN(3)])
		case 6, 7:
			facet([]string{"minInclusive", "minExclusive"}[r.IntN(2)], of())
		case 8, 9:
			facet([]string{"maxInclusive", "maxExclusive"}[r.IntN(2)], of())
		case 10:
			facet("totalDigits", number(6))
			if r.IntN(2) == 0 {
				facet("fractionDigits", number(4))
			}
		}
	}
	return b.String()
}

func schemaOf(facets string) string {
	return `<xs:schema xmlns:xs="` + NS + `" xmlns:p="urn:p"><xs:element name="v"><xs:simpleType><xs:restriction>` + facets + `</xs:restriction></xs:simpleType></xs:element></xs:schema>`
}

func documentOf(text string) string {
	return `<v xmlns:p="urn:p">` + strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(text) + `</v>`
}

func constraintOf(facets string) string {
	return `<ItemConstraint xmlns:xs="` + NS + `" xmlns:p="urn:p">` + facets + `</ItemConstraint>`
}

func compiled(t testing.TB, constraint string) (*Type, error) {
	t.Helper()
	d, err := xmldoc.ReadBytes([]byte(constraint), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", constraint, err)
	}
	return Compile(d.Root())
}

func checked(t testing.TB, typ *Type, document string) error {
	t.Helper()
	d, err := xmldoc.ReadBytes([]byte(document), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return typ.Check(Node{Text: xmldoc.Text(d.Root()), Element: d.Root()})
}

// TestFacetsAgainstLibxml2 holds verdicts on literals of every type, under generated
// facets, against libxml2's.
func TestFacetsAgainstLibxml2(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 71))
	var constraints []string
	for _, typ := range slices.Sorted(maps.Keys(kinds)) {
		base := `<xs:simpleType><xs:restriction base="xs:` + typ + `"/></xs:simpleType>`
		constraints = append(constraints, base)
		for range 40 {
			constraints = append(constraints, base+build(r, typ))
		}
	}
	for _, f := range forms {
		constraints = append(constraints, `<xs:simpleType><xs:restriction base="xs:string"/></xs:simpleType><xs:pattern value="`+attribute(f)+`"/>`)
	}
	for range 60 {
		item := slices.Sorted(maps.Keys(kinds))[r.IntN(len(kinds))]
		other := slices.Sorted(maps.Keys(kinds))[r.IntN(len(kinds))]
		constraints = append(constraints,
			`<xs:simpleType><xs:union memberTypes="xs:`+item+` xs:`+other+`"/></xs:simpleType>`,
			`<xs:simpleType><xs:list itemType="xs:`+item+`"/></xs:simpleType>`+build(r, item),
			`<xs:simpleType><xs:restriction base="xs:`+item+`">`+build(r, item)+`</xs:restriction></xs:simpleType>`+build(r, item),
			`<xs:simpleType><xs:union><xs:simpleType><xs:restriction base="xs:`+item+`">`+build(r, item)+`</xs:restriction></xs:simpleType><xs:simpleType><xs:restriction base="xs:`+other+`"/></xs:simpleType></xs:union></xs:simpleType>`)
	}
	all := slices.Concat(slices.Collect(maps.Values(map[string][]string{"": {"1 2 3", "a b c", "true false"}}))...)
	var cases []testenv.SchemaCase
	var of []int
	for i, c := range constraints {
		var values []string
		for name, typ := range kinds {
			if strings.Contains(c, `xs:`+name+`"`) || strings.Contains(c, `xs:`+name+` `) {
				values = append(values, literals[typ]...)
			}
		}
		slices.Sort(values)
		for _, v := range slices.Compact(append(values, all...)) {
			cases, of = append(cases, testenv.SchemaCase{Schema: schemaOf(c), Document: documentOf(v)}), append(of, i)
		}
	}
	judged(t, constraints, cases, of)
}

var small = regexp.MustCompile(`xs:(byte|short|int|long|unsigned\w+)[" ]`)

// quirk reports where libxml2 is known to be wrong: it takes an empty NMTOKENS, does not
// collapse white space of the integers of fixed size, nor take "+1" and "-0" for
// unsigned ones, ends at a QName of a union that has no namespace, takes any text for
// base64Binary in a union, and forgets there that a bound of time has a zone.
func quirk(constraint, document string) bool {
	switch {
	case strings.Contains(constraint, "xs:NMTOKENS"):
		return strings.Contains(document, "></v>")
	case strings.Contains(constraint, "union") && (strings.Contains(constraint, "xs:QName") || strings.Contains(constraint, "xs:base64Binary")):
		return true
	case strings.Contains(constraint, "union") && strings.Contains(constraint, "xs:time"):
		return strings.Contains(document, "+01:00")
	case small.MatchString(constraint):
		return strings.Contains(document, "> 7 <") || strings.Contains(document, ">+1<") || strings.Contains(document, ">-0<")
	}
	return false
}

// incomparable reports whether a bound has no order with the value, which libxml2
// lets pass and we do not.
func incomparable(t *testing.T, s *simple, document string) bool {
	if s == nil {
		return false
	}
	if slices.ContainsFunc(s.members, func(m *simple) bool { return incomparable(t, m, document) }) {
		return true
	}
	for _, f := range s.facets {
		for _, b := range f.bounds {
			d, err := xmldoc.ReadBytes([]byte(document), xmldoc.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if v, ok := s.atom.parse(collapse.apply(xmldoc.Text(d.Root())), d.Root()); ok {
				if _, ok := compare(v, b.value); !ok {
					return true
				}
			}
		}
	}
	return false
}

func judged(t *testing.T, constraints []string, cases []testenv.SchemaCase, of []int) {
	t.Helper()
	types, errs := make([]*Type, len(constraints)), make([]error, len(constraints))
	for i, c := range constraints {
		types[i], errs[i] = compiled(t, constraintOf(c))
	}
	good, bad, refused := 0, 0, 0
	reported := map[int]bool{}
	for i, said := range testenv.Schema(t, cases) {
		c := of[i]
		if strings.HasPrefix(said, "schema: ") {
			refused++
			if errs[c] == nil && !reported[c] {
				reported[c] = true
				t.Logf("libxml2 refuses what we take: %s: %s", constraints[c], said)
			}
			continue
		}
		if quirk(constraints[c], cases[i].Document) {
			continue
		}
		if errs[c] != nil {
			if s := errs[c].Error(); strings.Contains(s, "stands there twice") || strings.Contains(s, " already") || strings.HasSuffix(s, " is 0") {
				continue // XML Schema forbids it; libxml2 does not look
			}
			if !reported[c] {
				t.Errorf("we refuse %s: %v", constraints[c], errs[c])
			}
			reported[c] = true
			continue
		}
		ours := checked(t, types[c], cases[i].Document)
		if ours != nil && incomparable(t, types[c].simple, cases[i].Document) {
			continue
		}
		if (ours == nil) != (said == "") {
			t.Errorf("%s\n%s\nwe say %v, libxml2 %q", constraints[c], cases[i].Document, ours, said)
		}
		if said == "" {
			good++
		} else {
			bad++
		}
	}
	t.Logf("%d accepted, %d not, %d under schemas that libxml2 refuses", good, bad, refused)
	if good < len(cases)/20 || bad < len(cases)/20 {
		t.Error("the test is too easy")
	}
}
