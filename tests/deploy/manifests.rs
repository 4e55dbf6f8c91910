//! The manifests in deploy/: each matches the schema of its API, and they fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, ENVOY_VERSION, HTTP_CONNECTION_MANAGER, Shell, workspace_root};
use serde_json::{Value, json};
use tests::manifests::*;
use tests::tools::tool;

use crate::schemas::{Published, misspelt};

#[test]
fn every_manifest_is_what_its_schema_says() -> Result<()> {
    let mut published = Published::new();
    let mut named = vec![("compose".to_owned(), Manifests::read("compose.yaml")?.the_only()?)];
    for manifest in Manifests::for_clusters()?.0 {
        named.push((schema_of(&manifest)?, manifest));
    }
    for (name, manifest) in named {
        let schema = published.schema(&name)?;
        assert_eq!(published.wrong(&manifest, schema), None, "{manifest}");
        for misspelt in misspelt(&manifest) {
            assert!(published.wrong(&misspelt, schema).is_some(), "accepted: {misspelt}");
        }
    }
    Ok(())
}

#[test]
fn no_manifest_has_a_secret_in_it() -> Result<()> {
    for manifest in Manifests::for_clusters()?.0 {
        assert_ne!(manifest["kind"], "Secret");
        for variable in every(&manifest, "env").into_iter().flat_map(each) {
            let by_reference = variable["valueFrom"] == "HOST" || variable["valueFrom"]["secretKeyRef"].is_object();
            assert!(variable.is_string() || by_reference, "{variable} in {manifest}");
        }
    }
    Ok(())
}

/// A container's own security context comes before its pod's.
#[test]
fn every_container_has_as_few_rights_as_it_needs() -> Result<()> {
    let mut containers = BTreeSet::new();
    for manifest in Manifests::for_clusters()?.0 {
        let pod = &manifest["spec"]["template"]["spec"];
        for container in ["initContainers", "containers"].iter().flat_map(|kind| each(&pod[kind])) {
            let context = |field: &str| match &container["securityContext"][field] {
                Value::Null => &pod["securityContext"][field],
                own => own,
            };
            for (field, expected) in [
                ("seccompProfile", json!({ "type": "RuntimeDefault" })),
                ("runAsNonRoot", json!(true)),
                ("allowPrivilegeEscalation", json!(false)),
                ("readOnlyRootFilesystem", json!(true)),
                ("capabilities", json!({ "drop": ["ALL"] })),
            ] {
                assert_eq!(*context(field), expected, "{field} in {manifest}");
            }
            containers.insert(container["name"].as_str().context("a container has a name")?.to_owned());
        }
    }
    assert_eq!(containers, ["envoy", "istio-proxy", "modules"].map(str::to_owned).into());
    let compose = Manifests::read("compose.yaml")?.the_only()?;
    for service in compose["services"].as_object().context("no services")?.values() {
        assert_eq!(service["read_only"], true);
        assert_eq!(
            (texts(&service["cap_drop"]), texts(&service["security_opt"])),
            (vec!["ALL"], vec!["no-new-privileges:true"])
        );
    }
    Ok(())
}

/// The commands on the page on deployment that begin with this text, each with its continuation lines.
fn commands(beginning: &str) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(workspace_root().join("docs/deployment.md"))?.replace("\\\n", "");
    Ok(page.lines().map(str::trim).filter(|line| line.starts_with(beginning)).map(str::to_owned).collect())
}

#[test]
fn the_page_creates_the_secrets_that_the_manifests_refer_to() -> Result<()> {
    let mut keys = BTreeMap::<String, BTreeSet<String>>::new();
    for command in commands("kubectl create secret generic")? {
        let mut shell = tool("sh")?;
        shell.args(["-c", &format!("{command} --dry-run=client --output=json")]);
        let output = shell.env("SEGMENT_WRITE_KEY", "k").env("STIGG_WEBHOOK_SECRET", "s").output()?;
        let secret: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{command}: {output:?}"))?;
        let name = secret["metadata"]["name"].as_str().context("no name")?;
        let data = secret["data"].as_object().context("no data")?;
        keys.entry(name.to_owned()).or_default().extend(data.keys().cloned());
    }
    for reference in Manifests::for_clusters()?.0.iter().flat_map(|manifest| every(manifest, "secretKeyRef")) {
        let created = keys.get(reference["name"].as_str().context("no name")?).context("no such Secret")?;
        let there = reference["key"].as_str().is_some_and(|key| created.contains(key));
        assert!(there || reference["optional"] == true, "{reference}, of {created:?}");
    }
    let chart = Manifests::chart(&[])?;
    let volumes = each(&chart.the("Deployment")?["spec"]["template"]["spec"]["volumes"]);
    let mounted = &volumes.map(|volume| &volume["secret"]).find(|secret| secret.is_object()).context("no Secret")?;
    let mounted_keys: BTreeSet<_> = every(mounted, "key").into_iter().filter_map(Value::as_str).collect();
    let created = keys.get(mounted["secretName"].as_str().context("no name")?).context("no such Secret")?;
    assert_eq!(created.iter().map(String::as_str).collect::<BTreeSet<_>>(), mounted_keys);
    Ok(())
}

/// `envoy.yaml` is the one source: the chart changes only what its values change.
#[test]
fn the_configuration_in_the_chart_is_a_variant_of_envoy_yaml() -> Result<()> {
    for (values, expressions, per_second) in [
        (RENDERINGS[0], "", 800),
        (RENDERINGS[1], "s/#native //; /#wasm$/d", 533),
        (RENDERINGS[2], "s/#tls //; s/#ipv6 //; /#ipv4$/d", 800),
        (RENDERINGS[3], "s/#global //; s/address: ratelimit,/address: ratelimit.stigg-segment.svc,/", 1000),
        (RENDERINGS[4], "", 800),
    ] {
        let script = format!("s/#sds //; /#env/d; {expressions}");
        let sed = Command::new("sed").args([&script, "envoy.yaml"]).current_dir(workspace_root()).output()?;
        let variant = Config::from_yaml(std::str::from_utf8(&sed.stdout)?)?;
        let own: Value = serde_json::from_str(variant.own_configuration()?)?;
        let module = variant.module_file()?;
        let bucket = json!({ "max_tokens": 2 * per_second, "tokens_per_fill": per_second, "fill_interval": "1s" });
        let expected = variant
            .set(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket"), bucket)?
            .plugin_configuration(own)?
            .module(&std::path::Path::new("/opt/stigg-segment").join(module.file_name().context("a file")?))?;
        let chart = Manifests::chart(values)?;
        let rendered = Config::from_yaml(chart.the("ConfigMap")?["data"]["envoy.yaml"].as_str().context("a text")?)?;
        assert!(rendered == expected, "{values:?}: {rendered}");
    }
    // One replica takes the whole limit, and not more.
    let one = Manifests::chart(&["replicas=1"])?;
    let text = one.the("ConfigMap")?["data"]["envoy.yaml"].as_str().context("a text")?;
    assert!(text.contains("{ max_tokens: 2000, tokens_per_fill: 1000, fill_interval: 1s }"), "{text}");
    // The filter's own configuration is added to, quotes and all.
    let chart =
        Manifests::chart(&["config.event_name.prefix=it's ", "source=eu", "segment.host=events.eu1.segmentapis.com"])?;
    let text = chart.the("ConfigMap")?["data"]["envoy.yaml"].as_str().context("a text")?;
    let own: Value = serde_json::from_str(Config::from_yaml(text)?.own_configuration()?)?;
    assert_eq!((&own["event_name"]["prefix"], &own["source"]), (&json!("it's "), &json!("eu")));
    assert!(own["write_key"]["filter_state"].is_string() && text.contains("address: events.eu1.segmentapis.com"));
    Ok(())
}

#[test]
fn helm_rejects_values_that_would_not_do_what_they_say() -> Result<()> {
    for (values, message) in [
        ("autoscaling.enabled=true", "autoscaling.enabled needs rateLimit.service"),
        ("replica=3", "additional properties 'replica' not allowed"),
        ("replicas=0", "minimum"),
        ("shell=lua", "value must be one of"),
        ("image.digest=latest", "does not match pattern"),
        ("segment.host=example.com", "value must be one of"),
        ("rateLimit.service=ratelimit", "does not match pattern"),
        // Two releases for two sources would send equal ids, and Segment would drop one of the calls.
        ("source=", "'/source'"),
        ("source=a.b", "'/source'"),
        ("config.source=a.b", "'/config/source'"),
    ] {
        let error = Manifests::chart(&[values]).unwrap_err();
        assert!(format!("{error:#}").contains(message), "{values}: {error:#}");
    }
    Ok(())
}

#[test]
fn the_chart_has_no_lint() -> Result<()> {
    for values in RENDERINGS {
        let output = tool("helm")?
            .args(["lint", "--strict", "deploy/chart", "--set", &[&[SOURCE], values].concat().join(",")])
            .output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// The table on rotation: only what has its secrets in the environment needs a restart. Tests rotate all others under load.
#[test]
fn the_page_says_where_a_rotation_needs_a_restart() -> Result<()> {
    let sds = Command::new("sed").args(["s/#sds //; /#env/d", "envoy.yaml"]).current_dir(workspace_root()).output()?;
    let envoy = [Config::shipped()?, Config::from_yaml(std::str::from_utf8(&sds.stdout)?)?];
    let gateways = |variants: &[&str]| {
        let both = ["istio.yaml", "envoy-gateway.yaml"].map(|file| Manifests::variant(file, variants));
        both.into_iter().map(|manifests| Ok(json!(manifests?.0).to_string())).collect::<Result<Vec<_>>>()
    };
    let compose = Manifests::read("compose.yaml")?.0;
    let installations = [
        vec![envoy[0].to_string()],
        vec![envoy[1].to_string()],
        vec![json!(compose).to_string()],
        vec![json!(Manifests::chart(&[])?.0).to_string()],
        gateways(&[])?,
        gateways(&["sds"])?,
    ];
    let page = tests::pages::read("docs/operations.md")?;
    let rows = page.lines().skip_while(|line| !line.starts_with("| deployment |") || !line.ends_with("| restart |"));
    let rows: Vec<_> = rows.skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), installations.len());
    for (row, texts) in rows.iter().zip(installations) {
        for text in texts {
            let in_environment =
                ["host_env_keys", "secretKeyRef", "\"environment\":"].iter().any(|word| text.contains(word));
            assert_eq!(in_environment, !row.ends_with("| no |"), "{row}");
        }
    }
    Ok(())
}

#[test]
fn the_parts_for_istio_find_each_other() -> Result<()> {
    let manifests = Manifests::read("istio.yaml")?;
    let the =
        |kind, path: &str| Ok::<_, anyhow::Error>(manifests.the(kind)?.pointer(path).cloned().unwrap_or_default());
    let labels = the("Deployment", "/spec/template/metadata/labels")?;
    for (kind, path) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("Gateway", "/spec/selector"),
        ("WasmPlugin", "/spec/selector/matchLabels"),
        ("EnvoyFilter", "/spec/workloadSelector/labels"),
    ] {
        let selector = the(kind, path)?;
        let selector = selector.as_object().with_context(|| format!("{kind} selects nothing"))?;
        assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{kind}");
    }
    for (kind, path, other, other_path) in [
        ("VirtualService", "/spec/gateways/0", "Gateway", "/metadata/name"),
        ("VirtualService", "/spec/hosts", "Gateway", "/spec/servers/0/hosts"),
        ("VirtualService", "/spec/http/0/route/0/destination/host", "ServiceEntry", "/spec/hosts/0"),
        ("VirtualService", "/spec/http/0/route/0/destination/port/number", "ServiceEntry", "/spec/ports/0/number"),
        ("DestinationRule", "/spec/host", "ServiceEntry", "/spec/hosts/0"),
        ("RoleBinding", "/roleRef/name", "Role", "/metadata/name"),
        ("RoleBinding", "/subjects/0/name", "ServiceAccount", "/metadata/name"),
        ("Deployment", "/spec/template/spec/serviceAccountName", "ServiceAccount", "/metadata/name"),
        ("Service", "/spec/ports/0/port", "Gateway", "/spec/servers/0/port/number"),
    ] {
        assert_eq!(the(kind, path)?, the(other, other_path)?, "{kind}{path}, {other}{other_path}");
    }
    Ok(())
}

#[test]
fn the_parts_for_envoy_gateway_find_each_other() -> Result<()> {
    let manifests = Manifests::read("envoy-gateway.yaml")?;
    let mut references = 0;
    for manifest in &manifests.0 {
        let keys = ["parametersRef", "parentRefs", "targetRefs", "backendRefs", "extensionRef"];
        let lists = keys.iter().flat_map(|key| every(manifest, key));
        for reference in lists.flat_map(|found| if found.is_array() { each(found).collect() } else { vec![found] }) {
            let kind = reference["kind"].as_str().unwrap_or("Gateway");
            let target = manifests.the(kind)?;
            assert_eq!(target["metadata"]["name"], reference["name"], "{reference}");
            let group = reference["group"].as_str().unwrap_or("gateway.networking.k8s.io");
            assert!(target["apiVersion"].as_str().is_some_and(|version| version.starts_with(group)), "{reference}");
            references += 1;
        }
    }
    // Another manifest refers to every one except the Gateway and its class.
    assert_eq!(references, manifests.0.len() - 1);
    Ok(())
}

#[test]
fn envoy_gateway_loads_the_library_from_where_the_manifest_puts_it() -> Result<()> {
    let manifests = Manifests::read_for(Shell::Native, "envoy-gateway.yaml")?;
    let proxy = &manifests.the("EnvoyProxy")?["spec"];
    let deployment = &proxy["provider"]["kubernetes"]["envoyDeployment"];
    let mount = &deployment["container"]["volumeMounts"][0];
    assert_eq!((&deployment["pod"]["volumes"][0]["name"], &mount["readOnly"]), (&mount["name"], &json!(true)));
    let module = &proxy["dynamicModules"][0];
    let path = module["source"]["local"]["path"].as_str().context("no path")?;
    assert_eq!(path, format!("{}/libstigg_segment.so", mount["mountPath"].as_str().context("no mount")?));
    assert_eq!(manifests.the("EnvoyExtensionPolicy")?["spec"]["dynamicModule"][0]["name"], module["name"]);
    Ok(())
}

#[test]
fn the_images_are_of_the_version_that_is_tested() -> Result<()> {
    let tag = concat!("/stigg-segment-filter:", env!("CARGO_PKG_VERSION"));
    let istio = Manifests::read("istio.yaml")?;
    let gateway = Manifests::read("envoy-gateway.yaml")?;
    let native = Manifests::read_for(Shell::Native, "envoy-gateway.yaml")?;
    let tag_of_modules = concat!("/stigg-segment-filter-modules:", env!("CARGO_PKG_VERSION"));
    let chart = Manifests::chart(&[])?;
    let pod = &chart.the("Deployment")?["spec"]["template"]["spec"];
    for image in [every(native.the("EnvoyProxy")?, "reference")[0], &pod["initContainers"][0]["image"]] {
        assert!(image.as_str().is_some_and(|image| image.ends_with(tag_of_modules)), "{image}");
    }
    for url in [
        &istio.the("WasmPlugin")?["spec"]["url"],
        &gateway.the("EnvoyExtensionPolicy")?["spec"]["wasm"][0]["code"]["image"]["url"],
    ] {
        assert!(url.as_str().is_some_and(|url| url.ends_with(tag)), "{url}");
    }
    let compose = Manifests::read("compose.yaml")?.the_only()?;
    let envoy = json!(format!("envoyproxy/envoy:v{ENVOY_VERSION}"));
    assert_eq!([every(&compose, "image")[0], &pod["containers"][0]["image"]], [&envoy, &envoy]);
    Ok(())
}
