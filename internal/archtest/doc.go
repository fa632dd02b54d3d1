// Package archtest keeps the rules of who may import whom, as a test. The rules
// and their reasons stand in archtest_test.go; docs/architecture.md has the picture.
package archtest
