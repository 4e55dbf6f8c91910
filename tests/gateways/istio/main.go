// Prints what Istio's control plane sends to the gateway of a manifest: for each file that an argument names, one line of
// JSON. The code that translates is Istio's own, in its test server. With `--fetch URL FOLDER` it fetches the module of an
// image as Istio's agent in a gateway's pod does, without TLS, and prints the module's file.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/bootstrap"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test"
	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

type object struct {
	APIVersion, Kind string
	Metadata         struct{ Namespace string }
	Spec             struct {
		Template struct {
			Metadata struct{ Labels, Annotations map[string]string }
		}
	}
}

// What Istio reads through Kubernetes' own client; all other kinds come from its store of configuration.
var fromKubernetes = regexp.MustCompile(`^(v1|apps/v1|gateway\.networking\.k8s\.io/.*)$`)

// In Istio's source, below the folder of the repository.
const template = "target/tools/sources/istio/tools/packaging/common/envoy_bootstrap.json"

var pluginName = regexp.MustCompile(regexp.QuoteMeta(model.TrafficExtensionResourceNamePrefix) + `[^"]+`)

func main() {
	options := log.DefaultOptions()
	options.OutputPaths = []string{"stderr"}
	must(log.Configure(options))
	if len(os.Args) == 4 && os.Args[1] == "--fetch" {
		image, err := url.Parse(os.Args[2])
		must(err)
		cache := wasm.NewLocalFileCache(os.Args[3], wasm.Options{InsecureRegistries: sets.New(image.Host)})
		module, err := cache.Get(os.Args[2], wasm.GetOptions{RequestTimeout: time.Minute})
		must(err)
		fmt.Println(module)
		return
	}
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		must(err)
		must(test.Wrap(func(t test.Failer) {
			line, err := json.Marshal(translate(t, string(text)))
			must(err)
			fmt.Println(string(line))
		}))
	}
}

func translate(t test.Failer, manifest string) map[string]any {
	meshConfig := mesh.DefaultMeshConfig()
	proxy := &model.Proxy{Type: model.Router, Metadata: &model.NodeMetadata{IstioVersion: "1.31.0"}}
	var objects, configs []string
	for _, document := range strings.Split(manifest, "\n---\n") {
		var object object
		must(yaml.Unmarshal([]byte(document), &object))
		switch {
		case object.Kind == "Deployment":
			template := object.Spec.Template.Metadata
			var err error
			meshConfig, err = mesh.ApplyProxyConfig(template.Annotations["proxy.istio.io/config"], meshConfig)
			must(err)
			proxy.ConfigNamespace = object.Metadata.Namespace
			proxy.Labels, proxy.Metadata.Labels = template.Labels, template.Labels
		case fromKubernetes.MatchString(object.APIVersion):
			objects = append(objects, document)
		case strings.Contains(object.APIVersion, "istio.io/"):
			configs = append(configs, document)
		}
	}
	proxy.Metadata.Namespace = proxy.ConfigNamespace
	proxy.Metadata.ProxyConfig = (*model.NodeMetaProxyConfig)(meshConfig.DefaultConfig)
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		MeshConfig:             meshConfig,
		KubernetesObjectString: strings.Join(objects, "\n---\n"),
		ConfigString:           strings.Join(configs, "\n---\n"),
	})
	proxy = server.SetupProxy(proxy)
	generated := server.Listeners(proxy)
	listeners := list(generated)
	// The plugins that the listeners name.
	text, err := json.Marshal(listeners)
	must(err)
	names := slices.Compact(slices.Sorted(slices.Values(pluginName.FindAllString(string(text), -1))))
	plugins := server.ConfigGen.BuildExtensionConfiguration(proxy, server.PushContext(), names, nil)
	return map[string]any{
		"stats_config":           statsConfig(proxy),
		"listeners":              listeners,
		"routes":                 list(server.RoutesFromListeners(proxy, generated)),
		"clusters":               list(server.Clusters(proxy)),
		"plugins":                list(plugins),
		"plugins_without_images": list(withoutImages(plugins)),
	}
}

// What the agent in the gateway's pod gives Envoy in place of plugins whose images it cannot fetch.
func withoutImages(plugins []*core.TypedExtensionConfig) []*core.TypedExtensionConfig {
	resources := []*anypb.Any{}
	for _, plugin := range plugins {
		resource, err := anypb.New(plugin)
		must(err)
		resources = append(resources, resource)
	}
	must(wasm.MaybeConvertWasmExtensionConfig(resources, noImages{}))
	replaced := []*core.TypedExtensionConfig{}
	for _, resource := range resources {
		plugin := &core.TypedExtensionConfig{}
		must(resource.UnmarshalTo(plugin))
		replaced = append(replaced, plugin)
	}
	return replaced
}

type noImages struct{}

func (noImages) Get(string, wasm.GetOptions) (string, error) { return "", errors.New("no image") }
func (noImages) Cleanup()                                    {}

// What the agent in the gateway's pod tells Envoy about metrics when it starts it.
func statsConfig(proxy *model.Proxy) any {
	id := "router~10.0.0.1~gateway." + proxy.ConfigNamespace + "~" + proxy.ConfigNamespace + ".svc.cluster.local"
	metadata := &model.BootstrapNodeMetadata{NodeMetadata: *proxy.Metadata}
	node := &model.Node{ID: id, Metadata: metadata, RawMetadata: map[string]any{}, Locality: &core.Locality{}}
	var text bytes.Buffer
	must(bootstrap.New(bootstrap.Config{Node: node}).WriteTo(template, &text))
	var started struct {
		StatsConfig any `json:"stats_config"`
	}
	must(json.Unmarshal(text.Bytes(), &started))
	return started.StatsConfig
}

// The same JSON in every run: protojson spaces it at random.
func list[M proto.Message](messages []M) []any {
	all := []any{}
	for _, message := range messages {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
		must(err)
		var value any
		must(json.Unmarshal(text, &value))
		all = append(all, value)
	}
	return all
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
