import { mount } from "svelte";
import "./app.css";
import App from "./App.svelte";
import { takeFromAddress } from "./lib/token";

takeFromAddress();
addEventListener("hashchange", takeFromAddress);
const target = document.getElementById("app");
if (target) mount(App, { target });
