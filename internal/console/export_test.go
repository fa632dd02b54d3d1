package console

import (
	"net/http"

	"github.com/gorilla/mux"
)

// Routes gives what the router of a handler of New answers: for each path the methods,
// none for a path that is there to refuse the other ones.
func Routes(h http.Handler) (map[string][]string, error) {
	out := map[string][]string{}
	err := h.(*api).router.Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, _ := r.GetMethods()
		out[path] = append(out[path], methods...)
		return nil
	})
	return out, err
}
