-- What many would write in ten minutes: patterns in place of a parser, and no checks. It is right for tidy events.

local authorization

function envoy_on_request(handle)
  local body = handle:body()
  local event = tostring(body:getBytes(0, body:length()))
  local kind = event:match('"type"%s*:%s*"(.-)"')
  local customer = event:match('"customer"%s*:%s*{.-"id"%s*:%s*"(.-)"')
  local message = event:match('"messageId"%s*:%s*"(.-)"')
  local timestamp = event:match('"timestamp"%s*:%s*"(.-)"')
  if not kind or not customer then
    handle:respond({ [":status"] = "204" }, "")
    return
  end
  local call = '{"event":"' .. kind:gsub("%.", "_") .. '","userId":"' .. customer .. '","messageId":"stigg-4d471f88-' .. message
    .. '","timestamp":"' .. timestamp .. '","context":{"library":{"name":"stigg-segment-filter","version":"0.2.0"}},"properties":'
    .. event .. "}"
  body:setBytes(call)
  authorization = authorization or "Basic " .. handle:base64Escape(os.getenv("SEGMENT_WRITE_KEY") .. ":")
  local headers = handle:headers()
  headers:replace("content-length", #call)
  headers:replace("authorization", authorization)
  headers:remove("stigg-webhooks-secret")
end
