package adapters

import (
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/jsdl"
)

func TestMapped(t *testing.T) {
	var full []MappingRow
	for _, e := range jsdl.Elements() {
		full = append(full, MappingRow{Element: e, Becomes: "x"})
	}
	got, err := Mapped(full)
	if err != nil || !slices.Equal(got, full) {
		t.Fatalf("rows that name every element in full: %v, %v", got, err)
	}

	short := []MappingRow{
		{"JobIdentification", "i", ""},
		{"Application", "a", ""},
		{"Resources", "r", ""},
		{"Description", "d", ""},
		{"OperatingSystem/Description", "o", ""},
		{"FileSystem", "f", ""},
		{"FileSystem/DiskSpace", "disk", ""},
		{"Placement", "", "never"},
		{"Placement/GPU", "gpu", ""},
		{"DataStaging", "", "never"},
		{"hpcpa:Executable", "h", ""},
	}
	for _, e := range jsdl.Elements() {
		if _, local, ok := strings.Cut(e, ":"); ok && !strings.Contains(e, "/") && local != "DataStaging" &&
			!slices.ContainsFunc(short, func(r MappingRow) bool { return r.Element == local }) {
			short = append(short, MappingRow{local, "p", ""})
		}
	}
	rows, err := Mapped(short)
	if err != nil {
		t.Fatal(err)
	}
	for element, want := range map[string]string{
		"posix:Executable": "p", "hpcpa:Executable": "h", "jsdl:JobIdentification/jsdl:JobName": "i",
		"jsdl:Resources/jsdl:FileSystem": "f", "jsdl:Resources/jsdl:FileSystem/jsdl:MountPoint": "f",
		"jsdl:Resources/jsdl:FileSystem/jsdl:DiskSpace": "disk", "jsdl:Resources/jsdl:FileSystem/jsdl:Description": "d",
		"jsdl:Application/jsdl:Description": "d", "jsdl:Resources/jsdl:OperatingSystem/jsdl:Description": "o", "portolan:Placement/portolan:GPU": "gpu", "portolan:Placement/portolan:Share": "",
	} {
		i := slices.IndexFunc(rows, func(r MappingRow) bool { return r.Element == element })
		if i < 0 || rows[i].Becomes != want {
			t.Errorf("%s: row %d of %v, want %q", element, i, rows, want)
		}
	}

	for says, rows := range map[string][]MappingRow{
		"has no row":        full[1:],
		"has two rows":      append(slices.Clone(full), full[0]),
		"is for no element": append(slices.Clone(full), MappingRow{Element: "Executables"}),
	} {
		if _, err := Mapped(rows); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error that says %q", err, says)
		}
	}
}
