// Package bestest has a basic execution service in memory, for tests of clients,
// servers and whatever stands on bes.Service. Its activities do nothing by
// themselves: a test says what becomes of them.
package bestest
