// Package faulty is a store that fails as a script says: before a call, after it
// (so that it happened and the answer is lost), or late. A script from a seed
// fails the same way each time, for the same calls in the same order.
package faulty
