// Reads objects of the Prometheus operator's kinds from its own types: a list of them, as JSON, on standard input. What has a field that is
// not theirs, or one of another type, is refused. Says the kind and name of each.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

func strict(text []byte, object any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(object)
}

func run() error {
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	for _, object := range objects {
		var known struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(object, &known); err != nil {
			return err
		}
		if known.APIVersion != "monitoring.coreos.com/v1" {
			return fmt.Errorf("%s is of %s", known.Kind, known.APIVersion)
		}
		kinds := map[string]any{
			"ServiceMonitor": &monitoring.ServiceMonitor{},
			"PodMonitor":     &monitoring.PodMonitor{},
			"PrometheusRule": &monitoring.PrometheusRule{},
		}
		kind, found := kinds[known.Kind]
		if !found {
			return fmt.Errorf("there is no kind %s here", known.Kind)
		}
		if err := strict(object, kind); err != nil {
			return fmt.Errorf("%s %s: %w", known.Kind, known.Metadata.Name, err)
		}
		fmt.Println(known.Kind, known.Metadata.Name)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
