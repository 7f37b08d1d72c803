// A small stand-in for the kindnetd that kind installs, which is not published as a Go module: a host-network DaemonSet that writes
// a point-to-point CNI configuration for its node's pod range, and keeps routes to the pod ranges of the other nodes.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

type nodeList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
		Status struct {
			Addresses []struct {
				Type    string `json:"type"`
				Address string `json:"address"`
			} `json:"addresses"`
		} `json:"status"`
	} `json:"items"`
}

const sa = "/var/run/secrets/kubernetes.io/serviceaccount/"
const conf = "/etc/cni/net.d/10-kindnet.conflist"

func sync(c *http.Client, api, hostIP string) error {
	tok, err := os.ReadFile(sa + "token")
	if err != nil {
		return err
	}
	req, _ := http.NewRequest("GET", api+"/api/v1/nodes", nil)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(tok)))
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return fmt.Errorf("nodes: %s", resp.Status)
	}
	var nl nodeList
	if err := json.NewDecoder(resp.Body).Decode(&nl); err != nil {
		return err
	}
	for _, n := range nl.Items {
		ip := ""
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" && ip == "" {
				ip = a.Address
			}
		}
		if n.Spec.PodCIDR == "" || ip == "" {
			continue
		}
		if ip == hostIP {
			cfg := fmt.Sprintf(`{"cniVersion":"0.3.1","name":"kindnet","plugins":[{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"/run/cni-ipam-state","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":%q}]]},"mtu":1500},{"type":"portmap","capabilities":{"portMappings":true}}]}`, n.Spec.PodCIDR)
			if old, _ := os.ReadFile(conf); string(old) != cfg {
				if err := os.WriteFile(conf+".tmp", []byte(cfg), 0o644); err != nil {
					return err
				}
				if err := os.Rename(conf+".tmp", conf); err != nil {
					return err
				}
				log.Println("wrote", conf, n.Spec.PodCIDR)
			}
			continue
		}
		_, dst, err := net.ParseCIDR(n.Spec.PodCIDR)
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(ip)}); err != nil {
			return fmt.Errorf("route %s via %s: %w", dst, ip, err)
		}
	}
	return nil
}

func main() {
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(sa + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool.AppendCertsFromPEM(ca)
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	api := "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	for {
		d := 10 * time.Second
		if err := sync(c, api, os.Getenv("HOST_IP")); err != nil {
			log.Println(err)
			d = time.Second
		}
		time.Sleep(d)
	}
}
