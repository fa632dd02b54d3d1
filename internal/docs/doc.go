// Package docs holds the pages of docs/ to the code: what a page says of the code
// is generated from it or checked against it by the tests here.
package docs
